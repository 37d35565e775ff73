"""Injects faults into one data type of a numbered feed, between numbering and producer: batch in, batch out.

What happens to a record depends on the seed, its stream and its place there alone: not on where batches end, nor on the
clock. The first number of a stream, and of each injected numbering, is always sent, in its place. Only numbered records
are touched. A record that is late, a copy or a CANCEL is held until its stream has come far enough, or the feed ends.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from k2.feeds.faults.fates import FateDraw
from k2.feeds.faults.missing import MissingNumbers
from k2.feeds.faults.streams import Streams
from k2.feeds.faults.truth import records_of
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import RECORD_TYPES, Action

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from k2.feeds.faults.fates import Barrier, Fates, OpenMute
    from k2.feeds.faults.missing import OpenGap
    from k2.feeds.faults.rates import FaultRates
    from k2.feeds.faults.streams import Numbered
    from k2.feeds.faults.truth import Entry

    Ints = NDArray[np.int64]

_IN_PLACE, _MOVED, _COPY, _CANCEL = range(4)
_KINDS: Final = {_MOVED: "move", _COPY: "duplicate", _CANCEL: "cancel"}
_NAMED: Final = ("symbol", "channel", "sequence", "sub_index", "source", "source_sequence")
_LINES: Final = ("gap", "withheld", "duplicate", "move", "cancel", "mute", "reset")
_NOTES: Final = {
    "k2.kind": pl.Int64, "k2.input": pl.Int64, "k2.code": pl.Int64, "k2.packet": pl.Int64, "k2.numbering": pl.Int64,
    "k2.target": pl.Int64, "k2.sent": pl.Boolean, "k2.original_place": pl.Int64,
}  # fmt: skip
"""Columns that go with a record while it is held; with a dot, so that no field can have the name."""


class FaultInjector:
    """One data type of one feed."""

    def __init__(
        self,
        data_type: str,
        rates: FaultRates,
        *,
        scope: str,
        streams_max: int,
        tell: Callable[[Entry], None] = lambda _: None,
    ) -> None:
        """Begin; `scope` is the venue's (symbol, channel or none), `tell` takes the lines of the truth file."""
        self._data_type = data_type
        self._tell = tell
        self._schema = message_polars_schema(RECORD_TYPES[data_type])
        self._streams = Streams(seed=rates.seed, data_type=data_type, scope=scope, streams_max=streams_max)
        self._fates = FateDraw(rates, self._streams, on_muted=self._tell_mute)
        self._missing = MissingNumbers(self._tell_gap)
        self._named: dict[int, Entry] = {}
        self._held = pl.DataFrame(schema={**self._schema, **_NOTES})
        self._shifts: dict[tuple[str, str], int] = {}
        self._taken = self._sent = 0
        self.counts: Counter[str] = Counter()
        """Lines told, by kind."""

    def inject(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Take the feed's next records, columns of `message_polars_schema`, and return what is sent of them now."""
        numbered = self._streams.numbered(rows)
        self._name_streams(rows, numbered)
        fates = self._fates.fates(numbered)
        noted = self._noted(rows, numbered, fates)
        self._tell_withheld(noted, numbered, fates)
        self._missing.note(numbered, fates)
        self._hold(noted, numbered, fates)
        due = self._due(numbered, fates.barriers)
        kept = np.ones(len(rows), np.bool_)
        kept[numbered.row[fates.withheld | fates.moved]] = False
        sent = self._in_order(noted.filter(kept), due)
        self._tell_resets(noted, numbered, fates, sent)
        self._taken += len(rows)
        return self._told(sent)

    def end(self) -> pl.DataFrame:
        """Return what is still held, and tell how the feed ended."""
        rest = self._held.sort("k2.target", "k2.code", "k2.packet", "k2.kind", "k2.input")
        self._held = self._held.clear()
        rows = self._told(rest.with_columns(place=pl.int_range(self._sent, self._sent + pl.len(), dtype=pl.Int64)))
        self._fates.end()
        self._missing.end()
        told = {kind: self.counts[kind] for kind in _LINES}
        self._tell(
            {"kind": "end", "data_type": self._data_type, "input": self._taken, "sent": self._sent, "told": told}
        )
        return rows

    def numbers_sent(self, ends: pl.DataFrame) -> pl.DataFrame:
        """Return how far each symbol came, in the numbers that were sent."""
        if not self._shifts:
            return ends
        shifts = [self._shifts.get(key, 0) for key in ends.select("source", "symbol").rows()]
        return ends.with_columns(last_sequence=pl.col("last_sequence") - pl.Series(shifts, dtype=pl.Int64))

    # The steps of a batch.

    def _noted(self, rows: pl.DataFrame, numbered: Numbered, fates: Fates) -> pl.DataFrame:
        """Return the batch with the numbers that are sent, and what has to be known of each record."""
        noted = {name: np.full(len(rows), -1, np.int64) for name in ("code", "packet", "numbering")}
        noted["code"][numbered.row], noted["packet"][numbered.row] = numbered.code, numbered.packet
        noted["numbering"][numbered.row] = fates.numbering
        shift = np.zeros(len(rows), np.int64)
        shift[numbered.row] = fates.shift
        return rows.with_columns(
            sequence=pl.col("sequence") - pl.Series(shift),
            **{f"k2.{name}": pl.Series(values) for name, values in noted.items()},
        ).with_columns(
            pl.lit(_IN_PLACE, pl.Int64).alias("k2.kind"),
            pl.int_range(self._taken, self._taken + pl.len(), dtype=pl.Int64).alias("k2.input"),
            pl.lit(None, pl.Int64).alias("k2.target"),
            pl.lit(value=True).alias("k2.sent"),
            pl.lit(None, pl.Int64).alias("k2.original_place"),
        )

    def _hold(self, noted: pl.DataFrame, numbered: Numbered, fates: Fates) -> None:
        sent = np.ones(len(noted), np.bool_)
        sent[numbered.row[fates.dropped]] = False
        noted = noted.with_columns(pl.Series("k2.sent", sent))
        added = [
            self._late(noted, numbered.row[flags], target[flags], kind)
            for flags, target, kind in (
                (fates.moved, fates.target, _MOVED),
                (fates.doubled, fates.target, _COPY),
                (fates.cancelled, fates.cancel_target, _CANCEL),
            )
        ]
        self._held = pl.concat([self._held, *(frame.select(self._held.columns) for frame in added)])

    def _late(self, noted: pl.DataFrame, rows: Ints, target: Ints, kind: int) -> pl.DataFrame:
        late = noted[rows].with_columns(pl.Series("k2.target", target), pl.lit(kind, pl.Int64).alias("k2.kind"))
        return late if kind != _CANCEL else _cancels(late)

    def _due(self, numbered: Numbered, barriers: list[Barrier]) -> pl.DataFrame:
        """Take out of what is held all whose packet has come, with the place in the batch that it goes before."""
        for barrier in barriers:
            caught = (
                (pl.col("k2.code") == barrier.code)
                & (pl.col("k2.packet") < barrier.packet)
                & (pl.col("k2.target") > barrier.packet)
            )
            self._held = self._held.with_columns(
                pl.when(caught).then(barrier.packet).otherwise("k2.target").alias("k2.target")
            )
        heads = np.flatnonzero(numbered.is_head)
        places = pl.DataFrame(
            {
                "k2.code": numbered.code[heads],
                "k2.target": numbered.packet[heads],
                "k2.anchor": numbered.row[heads],
            }
        )
        due = self._held.join(places, on=("k2.code", "k2.target"), how="inner")
        self._held = self._held.join(places, on=("k2.code", "k2.target"), how="anti")
        return due

    def _in_order(self, kept: pl.DataFrame, due: pl.DataFrame) -> pl.DataFrame:
        """Return what is sent of a batch, in order, each with its place; held copies learn their original's."""
        anchored = kept.with_columns((pl.col("k2.input") - self._taken).alias("k2.anchor"))
        sent = pl.concat([anchored, due.select(anchored.columns)]).sort(
            "k2.anchor", pl.col("k2.kind") == _IN_PLACE, "k2.packet", "k2.kind", "k2.input"
        )
        sent = sent.with_columns(place=pl.int_range(self._sent, self._sent + pl.len(), dtype=pl.Int64))
        places = sent.filter(pl.col("k2.kind") == _IN_PLACE).select("k2.input", original="place")
        self._held = _with_original(self._held, places)
        return _with_original(sent, places)

    # The truth.

    def _told(self, sent: pl.DataFrame) -> pl.DataFrame:
        """Tell what of it was injected, and return the records."""
        late = sent.filter(pl.col("k2.kind") != _IN_PLACE)
        notes = late.select("k2.kind", "k2.input", "k2.numbering", "k2.sent", "k2.original_place", "place").rows()
        refers_to = late["ref_trade_id"].to_list() if "ref_trade_id" in late.columns else [None] * len(late)
        for record, note, trade_id in zip(records_of(late, _NAMED), notes, refers_to, strict=True):
            kind, taken, numbering, was_sent, original, place = note
            entry: Entry = {**record, "numbering": numbering, "input": taken, "place": place}
            if kind == _COPY:
                entry["original_place"] = original
            elif kind == _CANCEL:
                entry |= {"ref_trade_id": trade_id, "original_sent": was_sent}
            self._say(_KINDS[kind], entry)
        self._sent += len(sent)
        return sent.select(list(self._schema))

    def _say(self, kind: str, entry: Entry) -> None:
        self.counts[kind] += 1
        self._tell({"kind": kind, "data_type": self._data_type, **entry})

    def _tell_withheld(self, noted: pl.DataFrame, numbered: Numbered, fates: Fates) -> None:
        at = np.flatnonzero(fates.withheld)
        at = at[np.argsort(numbered.row[at])]
        rows = noted[numbered.row[at]]
        notes = rows.select("symbol", "channel", "k2.numbering", "k2.input").rows()
        records = records_of(rows, list(self._schema))
        for record, (symbol, channel, numbering, taken), muted in zip(records, notes, fates.muted[at], strict=True):
            named = {"symbol": symbol, "channel": channel, "numbering": numbering}
            cause = "mute" if muted else "gap"
            self._say("withheld", {**named, "input": taken, "cause": cause, "record": record})

    def _tell_resets(self, noted: pl.DataFrame, numbered: Numbered, fates: Fates, sent: pl.DataFrame) -> None:
        for reset in fates.resets:
            row = int(numbered.row[reset.at])
            record = noted.row(row, named=True)
            self._shifts[record["source"], record["symbol"]] = reset.shift
            in_place = (pl.col("k2.input") == record["k2.input"]) & (pl.col("k2.kind") == _IN_PLACE)
            entry = {**self._named[record["k2.code"]], "numbering": record["k2.numbering"]}
            entry |= {"input": record["k2.input"], "place": sent.filter(in_place)["place"].item()}
            self._say("reset", {**entry, "last": reset.last, "shift": reset.shift, "injected": reset.injected})

    def _tell_mute(self, mute: OpenMute, ended_ns: int | None) -> None:
        entry = {**self._named[mute.code], "numbering": mute.numbering, "first": mute.first, "last": mute.last}
        self._say("mute", {**entry, "records": mute.records, "from_ns": mute.from_ns, "to_ns": ended_ns})

    def _tell_gap(self, gap: OpenGap, *, tail: bool) -> None:
        entry = {**self._named[gap.code], "numbering": gap.numbering, "first": gap.first, "last": gap.last}
        self._say("gap", {**entry, "records": gap.records, "cause": gap.cause, "tail": tail})

    def _name_streams(self, rows: pl.DataFrame, numbered: Numbered) -> None:
        for start, _ in numbered.groups():
            code = int(numbered.code[start])
            if code not in self._named:
                self._named[code] = records_of(rows[int(numbered.row[start])], ("symbol", "channel"))[0]


def _cancels(trades: pl.DataFrame) -> pl.DataFrame:
    """Return CANCELs of the trades that can be named; they have no number, since numbers were given before."""
    if "trade_id" not in trades.columns:
        return trades.clear()
    return trades.filter(pl.col("trade_id").is_not_null() & (pl.col("action") == Action.NEW)).with_columns(
        action=pl.lit(Action.CANCEL),
        ref_trade_id="trade_id",
        sequence=pl.lit(None, pl.Int64),
        sub_index=pl.lit(None, pl.Int32),
    )


def _with_original(rows: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Return the rows, copies among them with the place of their original where it is known now."""
    joined = rows.join(places, on="k2.input", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("k2.original_place", "original").alias("k2.original_place")).drop("original")
