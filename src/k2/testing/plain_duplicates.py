"""The rule of duplicates once more, record by record with plain dictionaries: what the fast ways must equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k2.schemas.duplicates import WINDOW
from k2.schemas.identity import content_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from k2.schemas.identity import IdentityRules
    from k2.schemas.records import RecordType


@dataclass
class PlainReplay:
    """Replays one partition's records in the order of the log."""

    record_type: RecordType
    rules: IdentityRules
    kept: list[Mapping[str, Any]] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)
    _won: dict[tuple[Any, ...], datetime] = field(default_factory=dict)
    _last: dict[tuple[Any, ...], tuple[tuple[Any, ...], datetime]] = field(default_factory=dict)

    def replay(self, records: Iterable[Mapping[str, Any]]) -> PlainReplay:
        """Take records, with all their columns."""
        for record in records:
            self._take(record)
        return self

    def _take(self, record: Mapping[str, Any]) -> None:
        identity = self._identity(record)
        if identity is None:
            self.kept.append(record)
            return
        said = tuple(str(record[name]) for name in content_source(self.record_type))
        at: datetime = record["ts_log"]
        won = self._won.get((identity, said))
        if won is not None and at - won <= WINDOW:
            self.duplicates.append(record["log_offset"])
            return
        last = self._last.get(identity)
        if last is not None and last[0] != said and at - last[1] <= WINDOW:
            self.conflicts.append(record["log_offset"])
        self._won[identity, said] = at
        self._last[identity] = (said, at)
        self.kept.append(record)

    def _identity(self, record: Mapping[str, Any]) -> tuple[Any, ...] | None:
        if record["exchange"] is None or record["exchange"] in self.rules.unchecked:
            return None
        base = (record["exchange"], record["symbol"], record["action"])
        if record["exchange"] in self.rules.numbered and record["sequence"] is not None:
            return (*base, record["channel"], record["trading_date"], record["sequence"], record["sub_index"])
        trade_id = record.get("trade_id")
        return None if trade_id is None else (*base, "id", trade_id)
