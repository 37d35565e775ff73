"""The numbered streams of a feed: each record's stream and place in it, the same however the feed is cut up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from k2.common.errors import ConfigurationError
from k2.feeds.faults.draws import DRAWS, stream_keys, uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]

_KEYS: Final = {"symbol": ("symbol", "channel"), "channel": ("channel",), "none": ("symbol", "channel")}
_CARRIED: Final = ("packets", "sequence", "day", "shift", "began", "numbering")
_CAPACITY: Final = 64


@dataclass(frozen=True, slots=True)
class Numbered:
    """The numbered records of a batch, by stream and then as they came.

    Records of one number that follow on one another are one packet; packets count from 1 in each stream.
    """

    row: Ints
    """Place in the batch."""
    code: Ints
    sequence: Ints
    before: Ints
    """The number before it in its stream, also of an earlier batch."""
    time_ns: Ints
    packet: Ints
    is_head: Flags
    """Whether a packet begins here."""
    begins_anew: Flags
    """Whether the feed itself begins its numbers again here: a lower number on a later day."""
    starts: Ints
    """Where each stream's records begin, and the end."""

    @property
    def ends(self) -> Ints:
        """Return for each record where its stream's records end."""
        return np.repeat(self.starts[1:], np.diff(self.starts))

    def groups(self) -> list[tuple[int, int]]:
        """Return where each stream's records begin and end."""
        return list(zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True))


class Streams:
    """Every stream met so far, by a code, with what is carried from batch to batch."""

    def __init__(self, *, seed: int, data_type: str, scope: str, streams_max: int) -> None:
        self._seed = seed
        self._data_type = data_type
        self._columns = _KEYS[scope]
        self._streams_max = streams_max
        self._codes: dict[tuple[str | None, ...], int] = {}
        self._keys = np.zeros((_CAPACITY, len(DRAWS)), np.uint64)
        self._carried = {name: np.zeros(_CAPACITY, np.int64) for name in _CARRIED}

    def carried(self, name: str) -> Ints:
        """Return what is carried of all streams, by code; to be read and written."""
        return self._carried[name]

    def draw(self, name: str, numbered: Numbered) -> Floats:
        """Return a number in [0, 1) for each record, the same for all of a packet."""
        return uniform(self._keys[numbered.code, DRAWS.index(name)], numbered.packet)

    def numbered(self, rows: pl.DataFrame) -> Numbered:
        """Return the numbered records of the next batch.

        Raises:
            ConfigurationError: there are more streams than allowed.
        """
        found = rows.select(*self._columns, "sequence", "ts_event_ns", "trading_date").with_row_index("row")
        found = found.filter(pl.col("sequence").is_not_null())
        names = found.select(self._columns).unique(maintain_order=True)
        codes = names.with_columns(code=pl.Series([self._code(name) for name in names.rows()], dtype=pl.Int64))
        coded = found.join(codes, on=self._columns, how="left", nulls_equal=True, maintain_order="left")
        coded = coded.sort("code", maintain_order=True)
        columns = {
            name: coded[column].to_physical().cast(pl.Int64).to_numpy()
            for name, column in (
                ("row", "row"), ("code", "code"), ("sequence", "sequence"), ("time_ns", "ts_event_ns"),
                ("day", "trading_date"),
            )
        }  # fmt: skip
        return self._placed(**columns)

    def _placed(self, row: Ints, code: Ints, sequence: Ints, time_ns: Ints, day: Ints) -> Numbered:
        packets, last, last_day = (self._carried[name] for name in ("packets", "sequence", "day"))
        heads = np.flatnonzero(np.r_[True, code[1:] != code[:-1]]) if len(code) else np.empty(0, np.int64)
        starts = np.append(heads, len(code)).astype(np.int64)
        lengths = np.diff(starts)
        before, day_before = _shifted(sequence), _shifted(day)
        owner = code[heads]
        before[heads], day_before[heads] = last[owner], last_day[owner]
        is_new = np.zeros(len(code), np.bool_)
        is_new[heads] = packets[owner] == 0
        is_head = is_new | (sequence != before)
        total = np.cumsum(is_head)
        packet = total + np.repeat(packets[owner] - (total[heads] - is_head[heads]), lengths)
        begins_anew = is_head & ~is_new & (sequence < before) & (day > day_before)
        final = starts[1:] - 1
        packets[owner], last[owner], last_day[owner] = packet[final], sequence[final], day[final]
        return Numbered(row, code, sequence, before, time_ns, packet.astype(np.int64), is_head, begins_anew, starts)

    def _code(self, name: tuple[str | None, ...]) -> int:
        code = self._codes.get(name)
        if code is None:
            code = self._codes[name] = len(self._codes)
            if code >= self._streams_max:
                raise ConfigurationError(
                    f"expected at most {self._streams_max:,} numbered streams, found more: raise "
                    "K2_FEEDS__FAULT_STREAMS_MAX, or inject no faults"
                )
            if code == len(self._keys):
                self._grow()
            self._keys[code] = stream_keys(self._seed, self._data_type, name)
            self._carried["began"][code] = 1
        return code

    def _grow(self) -> None:
        self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
        self._carried = {name: np.concatenate([held, np.zeros_like(held)]) for name, held in self._carried.items()}


def _shifted(values: Ints) -> Ints:
    """Return the value before each; the first has itself."""
    return np.concatenate([values[:1], values[:-1]])
