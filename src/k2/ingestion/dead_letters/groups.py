"""Gathers dead letters into groups of one cause: same table, topic, error class, and reason but for its values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

_KEYS: Final = ("table_name", "topic", "error_class", "pattern")
_QUOTED: Final = r"""b?'[^']*'|b?"[^"]*\""""
_NUMBER: Final = r"-?\d[\d.,:]*"
_VALUE: Final = "*"


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Dead letters of one cause; times are those of the log, or of the record where the log gave none."""

    table_name: str
    topic: str
    error_class: str
    reason: str
    """The reason of the newest one."""
    records: int
    first: dt.datetime
    last: dt.datetime

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, times as ISO 8601."""
        return asdict(self) | {"first": self.first.isoformat(), "last": self.last.isoformat()}


def group_letters(frames: Iterable[pl.DataFrame]) -> list[LetterGroup]:
    """Return the groups, the largest first; memory is bounded by their number and the largest frame."""
    groups: pl.DataFrame | None = None
    for frame in frames:
        if frame.height:
            found = _gather(_prepared(frame))
            groups = found if groups is None else _gather(pl.concat([groups, found]))
    if groups is None:
        return []
    ordered = groups.sort("records", *_KEYS, descending=[True, False, False, False, False]).drop("pattern")
    return [LetterGroup(**row) for row in ordered.to_dicts()]


def _prepared(frame: pl.DataFrame) -> pl.DataFrame:
    at = pl.coalesce("ts_log", "ts_recorded")
    pattern = pl.col("reason").str.replace_all(_QUOTED, _VALUE).str.replace_all(_NUMBER, _VALUE)
    return frame.select(
        "table_name",
        "topic",
        "error_class",
        "reason",
        pattern=pattern,
        records=pl.lit(1, pl.Int64),
        first=at,
        last=at,
    )


def _gather(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by(_KEYS).agg(
        reason=pl.col("reason").sort_by("last").last(),
        records=pl.col("records").sum(),
        first=pl.col("first").min(),
        last=pl.col("last").max(),
    )
