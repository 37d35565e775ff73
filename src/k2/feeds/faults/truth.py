"""The ground truth of an injection: one JSON object a line, in the order in which things became certain.

`run` begins the file and says what was asked for; one `end` a data type says that it is whole. Between them, each with
`data_type`, `symbol`, `channel` and `numbering` (how often the stream was reset before):

    gap        `first` to `last` are numbers that were not sent, `records` of them were in the feed; `cause` is gap,
               mute or both; `tail`: no later number of that numbering was sent, so only an end marker shows the gap
    withheld   one record that was not sent, whole, with its `cause`
    duplicate  a record sent twice: `original_place`, and `place` of the copy
    move       a record sent late, at `place`
    cancel     a CANCEL added at `place` for the trade `ref_trade_id`; `original_sent` says whether that came
    mute       a stream silent from `from_ns` on; `to_ns` is the event that ended it (null: none did)
    reset      numbers begin again at `place`: from there on they are `shift` lower than in the feed; `last` came
               before. Not `injected`: the feed began again by itself, which ended an injected numbering

`input` counts a data type's records in the feed, `place` those sent, both from 0. What is not named went out in order
and unchanged. Numbers are those that were sent; gaps that the feed had by itself are not listed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from k2.common.errors import ConfigurationError
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from k2.feeds.faults.rates import FaultRates

VERSION: Final = 1

Entry = dict[str, Any]
"""One line; its shape depends on its `kind`."""


class TruthFile:
    """Writes the lines as they come; a file without its `end` lines is that of a run that did not end."""

    def __init__(self, path: Path, rates: FaultRates, feed: str) -> None:
        """Begin the file.

        Raises:
            ConfigurationError: it cannot be written.
        """
        try:
            self._stream = path.open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"cannot write the truth file {path}: {error.strerror}; name another") from error
        self({"kind": "run", "version": VERSION, "feed": feed, **asdict(rates)})

    def __call__(self, entry: Entry) -> None:
        """Write one line."""
        self._stream.write(json.dumps(entry, default=_text) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_truth(path: Path) -> list[Entry]:
    """Return the lines of a truth file.

    Raises:
        ConfigurationError: it is none, or of a run that did not end.
    """
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"expected a truth file of JSON lines at {path}, found none: {error}") from error
    if not entries or entries[0].get("kind") != "run" or entries[0].get("version") != VERSION:
        raise ConfigurationError(f"expected a truth file of version {VERSION} at {path}, found another file")
    if entries[-1].get("kind") != "end":
        raise ConfigurationError(
            f"expected {path} to end in a line of the kind end, found none: the run was broken off"
        )
    return entries


def withheld_rows(entries: Iterable[Entry], data_type: str) -> pl.DataFrame:
    """Return the records of one data type that were not sent, with their `input`."""
    found = [entry for entry in entries if entry["kind"] == "withheld" and entry["data_type"] == data_type]
    schema = message_polars_schema(RECORD_TYPES[data_type])
    columns = {
        name: pl.Series(name, [_value(entry["record"][name], kind) for entry in found], dtype=kind)
        for name, kind in schema.items()
    }
    return pl.DataFrame({"input": pl.Series([entry["input"] for entry in found], dtype=pl.Int64), **columns})


def records_of(rows: pl.DataFrame, names: Sequence[str]) -> list[Entry]:
    """Return rows as objects of the columns named."""
    return rows.select(names).rows(named=True)


def _value(value: Any, kind: pl.DataType) -> Any:
    if value is None:
        return None
    if isinstance(kind, pl.Decimal):
        return Decimal(value)
    return date.fromisoformat(value) if isinstance(kind, pl.Date) else value


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"expected a value that JSON or text can hold, found {type(value).__name__}")
