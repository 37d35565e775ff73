"""Local wall times of a venue to UTC nanoseconds, by the zone's rules and not by a fixed offset.

An hour that the clocks pass twice (the end of daylight saving) is read as the first of the two, and one that they
skip does not exist: it gives null. ASX never trades in either; the rule makes the answer the same every time.
"""

from __future__ import annotations

import polars as pl


def utc_ns(local: pl.Expr, timezone: str) -> pl.Expr:
    """Return Int64 UTC nanoseconds of the naive `Datetime("ns")` times `local`; null where a time does not exist."""
    zoned = local.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    return zoned.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(pl.Int64)
