"""Which records are duplicates: a function of the log alone.

A record is dropped where the full identity and the hash of the content equal those of a record that was kept, the
winner, and its log time is at most a day after the winner's. The first in the log wins; a record past the winner's day
is kept and wins anew. The same identity with other content is a conflict: both are kept, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

from k2.schemas.identity import CONTENT, IDENTITY, SAME

WINDOW: Final = timedelta(hours=24)
"""A part of the contract: another window would decide other than before about the same log."""
WINNER: Final = (*SAME, "ts_log", "log_offset")
"""What a decision needs of each suspect and of each winner."""


_NONE: Final = pl.Series("log_offset", [], pl.Int64)


@dataclass(frozen=True)
class Decided:
    """What was decided about suspects: which offsets are duplicates, and which are kept in conflict with another."""

    duplicates: pl.Series
    conflicts: pl.Series


def decide(suspects: pl.DataFrame, kept: pl.DataFrame) -> Decided:
    """Decide about records of one partition, in the order of their offsets; `kept` are earlier records that were kept.

    Both frames have the columns WINNER. All suspects must have an identity.
    """
    if suspects.is_empty():
        return Decided(_NONE, _NONE)
    first = suspects["log_offset"].min()
    kept = kept.filter(pl.col("log_offset") < first).select(WINNER)
    # Numbers of equal identity and content: full values are compared, not hashes of the identity.
    numbered = pl.concat(
        [
            kept.with_columns(is_kept=pl.lit(value=True)),
            suspects.select(WINNER).sort("log_offset").with_columns(is_kept=pl.lit(value=False)),
        ]
    ).with_columns(group=pl.struct(SAME).rank("dense"))
    latest = numbered.filter("is_kept").sort("log_offset").group_by("group").agg(won=pl.col("ts_log").last())
    left = numbered.filter(~pl.col("is_kept")).join(latest, on="group", how="left", maintain_order="left")
    duplicates: list[pl.Series] = []
    while left.height:
        left, found = _one_winner_each(left)
        duplicates.append(found)
    dropped = pl.concat(duplicates)
    return Decided(dropped.sort(), _conflicts(numbered.filter(~pl.col("log_offset").is_in(dropped.implode()))))


def _one_winner_each(left: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """Decide each group up to its next winner; return what is left behind that, and the duplicates found."""
    late = left.filter(pl.col("won").is_null() | (pl.col("ts_log") - pl.col("won") > WINDOW))
    winners = late.group_by("group", maintain_order=True).agg(
        next_offset=pl.col("log_offset").first(), next_won=pl.col("ts_log").first()
    )
    joined = left.join(winners, on="group", how="left", maintain_order="left")
    before = pl.col("next_offset").is_null() | (pl.col("log_offset") < pl.col("next_offset"))
    behind = joined.filter(pl.col("log_offset") > pl.col("next_offset"))
    return behind.with_columns(won="next_won").drop("next_offset", "next_won"), joined.filter(before)["log_offset"]


def _conflicts(kept: pl.DataFrame) -> pl.Series:
    """Return the offsets of suspects kept although the record before, of the same identity, says otherwise."""
    before = kept.sort("log_offset").with_columns(identity=pl.struct(IDENTITY).rank("dense"))
    other = before.with_columns(
        said=pl.col(CONTENT).shift(1).over("identity"), at=pl.col("ts_log").shift(1).over("identity")
    )
    differs = pl.col("said").is_not_null() & (pl.col("said") != pl.col(CONTENT))
    found = other.filter(~pl.col("is_kept") & differs & (pl.col("ts_log") - pl.col("at") <= WINDOW))
    return found["log_offset"].sort()
