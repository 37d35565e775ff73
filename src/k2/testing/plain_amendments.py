"""The rule of amendments once more, record by record with plain lists: what the fast way must equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Record = Mapping[str, Any]
    Name = tuple[Any, ...]

OF_THE_ORIGINAL = frozenset(
    {"ts_event_ns", "ts_event", "log_id", "log_partition", "log_offset", "ts_log", "commit_sequence", "written_by"}
)
"""What a corrected row keeps of its original; all else is the correction's."""


@dataclass
class PlainAnswer:
    """What is to be shown of the records of one symbol and range, and counted."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    corrected: int = 0
    unknown: int = 0


def plain_answer(records: Sequence[Record], in_range: Iterable[Record]) -> PlainAnswer:
    """Return what is shown of the records in a range, where `records` are all that is known of the symbol."""
    answer = PlainAnswer()
    for record in in_range:
        names = _all_names(record, records)
        amendments = [other for other in records if other["action"] != "NEW" and _named(other) in names]
        cancelled = any(other["action"] == "CANCEL" for other in amendments)
        corrections = sorted((other for other in amendments if other["action"] == "CORRECT"), key=_place)
        if record["action"] == "NEW":
            answer.cancelled += cancelled
            answer.corrected += bool(corrections) and not cancelled
            if not cancelled:
                answer.rows.append(_corrected(record, corrections[-1]) if corrections else dict(record))
        elif not any(other["action"] == "NEW" and _own(other) in names for other in records):
            answer.unknown += 1
            newest = record["action"] == "CORRECT" and (not names or record is corrections[-1])
            if newest and not cancelled:
                answer.rows.append(dict(record))
    return answer


def _corrected(original: Record, correction: Record) -> dict[str, Any]:
    return {name: (original if name in OF_THE_ORIGINAL else correction)[name] for name in original}


def _all_names(record: Record, records: Sequence[Record]) -> set[Name]:
    """Return the names of the trade that a record is or amends, those included that corrections gave it."""
    first = _own(record) if record["action"] == "NEW" else _named(record)
    names: set[Name] = set() if first is None else {first}
    while True:
        tied = {
            name
            for other in records
            if other["action"] == "CORRECT" and names & {_own(other), _named(other)}
            for name in (_own(other), _named(other))
            if name is not None
        }
        if tied <= names:
            return names
        names |= tied


def _own(record: Record) -> Name | None:
    trade_id = record.get("trade_id")
    return None if trade_id is None else (record["exchange"], record["trading_date"], trade_id)


def _named(record: Record) -> Name | None:
    reference = record.get("ref_trade_id")
    return _own(record) if reference is None else (record["exchange"], record["trading_date"], reference)


def _place(record: Record) -> tuple[int, int, int]:
    return record["log_id"], record["log_partition"], record["log_offset"]
