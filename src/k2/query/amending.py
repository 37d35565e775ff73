"""Shows rows as amended: cancelled trades left out, corrected ones with their newest values at their original's place.

A row of an answer keeps the coordinate and the event time of the original, whatever amends it. So neither order nor
pages depend on amendments, and two answers as known at two times differ in just the trades that were amended between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from k2.schemas.amendments import NAMES, PLACE
from k2.schemas.records import Action, Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from k2.schemas.amendments import Amendment, Name, Place, Settled
    from k2.schemas.records import RecordType

    LookUp = Callable[[Collection[Name]], Collection[Name]]
    """Returns those of some names of which an original is known, wherever and whenever."""

NEEDED: Final = (*NAMES, "action", *PLACE)
"""The columns that decide about a row; a record type may lack some of them."""
_NAMED_AT_MOST: Final = 5
_LEGACY: Final = pl.CompatLevel.oldest()


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows as an answer shows them, and what amendments did in the stretch that they cover."""

    rows: pa.Table
    truncated: bool
    cancelled: int = 0
    corrected: int = 0
    unknown: int = 0
    """Amendments whose original is not known."""
    unknown_names: tuple[str, ...] = ()
    """Some of the ids that those name."""


@dataclass(frozen=True, slots=True)
class AmendedRow:
    """An amendment that changed a row: the row's number, and the amendment's place in the log."""

    number: int
    place: Place
    from_log: bool
    """Whether no commit has stored it yet."""


@dataclass(slots=True)
class _Marks:
    """What is to be done with rows, by their number; all others are shown as they are."""

    left_out: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    corrected: dict[int, int] = field(default_factory=dict)
    """Of an original's row: the row of the correction among the amendments."""
    unknown: list[tuple[int, str | None]] = field(default_factory=list)


class Amending:
    """The amendments that may concern one answer, settled."""

    def __init__(self, record_type: RecordType, settled: Settled, *, look_up: LookUp, stored: int) -> None:
        """Take the amendments, of which `stored` are rows of the table."""
        self._said = {
            field.name for field in record_type.fields if field.origin is Origin.MESSAGE and field.name != "ts_event_ns"
        }
        known = {field.name for field in record_type.fields}
        self.columns = [name for name in NEEDED if name in known]
        """The columns that the rows must have."""
        self._settled = settled
        self._look_up = look_up
        self.rows_more = 2 * stored
        """How many stored rows beyond those shown are to be read: as many as are likely to be left out."""

    def shown(self, rows: pa.Table, limit: int) -> Shown:
        """Return at most `limit` rows of those given, which are in order and have `columns`."""
        marks = self._marks(rows)
        end = limit
        for number in marks.left_out:
            if number >= end:
                break
            end += 1
        truncated = rows.num_rows - len(marks.left_out) > limit
        if truncated:
            rows = rows.slice(0, end)
        end = rows.num_rows
        left_out = [number for number in marks.left_out if number < end]
        corrected = {number: row for number, row in marks.corrected.items() if number < end}
        unknown = [name for number, name in marks.unknown if number < end]
        names = dict.fromkeys(name for name in unknown if name is not None)
        return Shown(
            rows=self._changed(rows, left_out, corrected),
            truncated=truncated,
            cancelled=sum(number < end for number in marks.cancelled),
            corrected=len(corrected),
            unknown=len(unknown),
            unknown_names=tuple(names)[:_NAMED_AT_MOST],
        )

    @property
    def trade_ids(self) -> list[str]:
        """Return the ids of all trades that amendments name: a NEW row with another is shown as it is."""
        return sorted({trade_id for _, _, trade_id in self._settled.fates})

    def amended(self, rows: pa.Table) -> list[AmendedRow]:
        """Return the amendments that cancel or correct rows of those given, each with the row that it does it to."""
        marks = self._marks(rows)
        numbers = sorted([*marks.cancelled, *marks.corrected])
        names = rows.select(list(NAMES)).take(pa.array(numbers, pa.int64())).to_pylist()
        of_fate: dict[int, list[tuple[Place, int]]] = {}
        for place, amendment in self._settled.by_place.items():
            if amendment.fate is not None:
                of_fate.setdefault(id(amendment.fate), []).append((place, amendment.row))
        amendments = self._settled.amendments
        commits = amendments["commit_sequence"] if "commit_sequence" in amendments.columns else [None] * len(amendments)
        found = []
        for number, name in zip(numbers, names, strict=True):
            fate = self._settled.fates[name["exchange"], name["trading_date"], name["trade_id"]]
            found += [AmendedRow(number, place, commits[row] is None) for place, row in of_fate[id(fate)]]
        return found

    def _marks(self, rows: pa.Table) -> _Marks:
        """Decide about the rows that amendments concern: they themselves, and what they name."""
        concerned = pc.not_equal(rows["action"], Action.NEW)
        if "trade_id" in self.columns:
            ids = pa.array({trade_id for _, _, trade_id in self._settled.fates}, rows["trade_id"].type)
            concerned = pc.or_(concerned, pc.is_in(rows["trade_id"], value_set=ids))
        numbers = pc.indices_nonzero(concerned)
        found = rows.select(self.columns).take(numbers).to_pylist()
        marks = _Marks()
        amendments: list[tuple[int, Amendment]] = []
        originals: set[Name] = set()
        for number, row in zip(numbers.to_pylist(), found, strict=True):
            if row["action"] != Action.NEW:
                amendments.append((number, self._settled.by_place[tuple(row[name] for name in PLACE)]))
                continue
            name = tuple(row[name] for name in NAMES)
            fate = self._settled.fates.get(name)
            if fate is not None:
                originals.add(name)
                if fate.cancelled:
                    marks.cancelled.append(number)
                elif fate.correction is not None:
                    marks.corrected[number] = fate.correction
        self._mark_amendments(marks, amendments, originals)
        marks.left_out = sorted([*marks.left_out, *marks.cancelled])
        return marks

    def _mark_amendments(self, marks: _Marks, amendments: list[tuple[int, Amendment]], originals: set[Name]) -> None:
        """Leave the amendments out, but for corrections that stand for an original that is not known."""
        fates = [found.fate for _, found in amendments if found.fate is not None]
        asked = {name for fate in fates if originals.isdisjoint(fate.names) for name in fate.names}
        known = originals | set(self._look_up(asked) if asked else ())
        actions = self._settled.amendments["action"]
        for number, found in amendments:
            fate = found.fate
            if fate is not None and not known.isdisjoint(fate.names):
                marks.left_out.append(number)
                continue
            marks.unknown.append((number, found.name))
            ended = fate is not None and (fate.cancelled or fate.correction != found.row)
            if ended or actions[found.row] != Action.CORRECT:
                marks.left_out.append(number)

    def _changed(self, rows: pa.Table, left_out: list[int], corrected: Mapping[int, int]) -> pa.Table:
        """Return the rows less those left out, and those of corrected trades as their corrections say."""
        if not left_out and not corrected:
            return rows
        places = pl.int_range(rows.num_rows, eager=True)
        if corrected:
            replacing = pl.int_range(rows.num_rows, rows.num_rows + len(corrected), eager=True)
            places = places.scatter(list(corrected), replacing)
            rows = pa.concat_tables([rows, self._corrected(rows, corrected)])
        if left_out:
            kept = pl.repeat(value=True, n=len(places), dtype=pl.Boolean, eager=True).scatter(left_out, values=False)
            places = places.filter(kept)
        return rows.take(places.to_arrow())

    def _corrected(self, rows: pa.Table, corrected: Mapping[int, int]) -> pa.Table:
        """Return what is shown in the place of some rows: what the corrections say, at the place of the originals."""
        originals = rows.take(list(corrected))
        corrections = self._settled.amendments[list(corrected.values())]
        columns = []
        for column in rows.schema:
            said = corrections[column.name].to_arrow(compat_level=_LEGACY) if column.name in self._said else None
            columns.append((originals[column.name] if said is None else said).cast(column.type))
        return pa.table(columns, schema=rows.schema)
