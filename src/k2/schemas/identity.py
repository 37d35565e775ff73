"""What makes two records the same one: the venue's identity, and a hash of what the venue said.

A record that its venue numbers is known by (exchange, channel, session, symbol, sequence, sub_index, action); one that
has a trade id only, by (exchange, symbol, trade_id, action); any other has no identity and is never a duplicate. The
session is the trading date: venues begin to count anew each day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.schemas.arrow import polars_schema
from k2.schemas.records import Origin

if TYPE_CHECKING:
    from k2.schemas.records import RecordType

IDENTITY: Final = (
    "exchange", "symbol", "action", "channel", "trading_date", "sequence", "sub_index", "trade_id",
)  # fmt: skip
"""The columns of `identities` that together are the identity; those that play no part are null."""
KEY: Final = "identity_hash"
CONTENT: Final = "content_hash"
SAME: Final = (*IDENTITY, CONTENT)
"""Two records are duplicates where all of these are equal: the full identity, and the hash of the content."""
_NOT_CONTENT: Final = frozenset({"ts_recv_ns", "source", "source_sequence"})
"""What a feed adds: two feeds of one venue differ in it."""
_NUMBERED_ONLY: Final = ("channel", "trading_date", "sequence", "sub_index")
_SEED: Final = 20_240_229
_SEPARATOR: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """Which exchanges number their messages, and of which no duplicate is looked for; the rest have trade ids."""

    numbered: frozenset[str] = frozenset()
    unchecked: frozenset[str] = frozenset()


def identity_source(record_type: RecordType) -> list[str]:
    """Return the stored columns that an identity is made of."""
    names = {field.name for field in record_type.fields}
    return [name for name in IDENTITY if name in names]


def content_source(record_type: RecordType) -> list[str]:
    """Return the stored columns that are the content: all that the venue said."""
    return [
        field.name for field in record_type.fields if field.origin is Origin.MESSAGE and field.name not in _NOT_CONTENT
    ]


def identities(rows: pl.DataFrame, record_type: RecordType, rules: IdentityRules) -> pl.DataFrame:
    """Return the identity of each row that has one, with its log time, its offset and its `place` among the rows."""
    types = polars_schema(record_type)
    numbered = pl.col("exchange").is_in(_texts(rules.numbered)) & pl.col("sequence").is_not_null()
    trade_id = pl.col("trade_id") if "trade_id" in rows.columns else pl.lit(None, pl.String)
    checked = pl.col("exchange").is_not_null() & ~pl.col("exchange").is_in(_texts(rules.unchecked))
    return (
        rows.select(
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("place"),
            "exchange",
            "symbol",
            "action",
            *(pl.when(numbered).then(pl.col(name).cast(types[name])).alias(name) for name in _NUMBERED_ONLY),
            pl.when(~numbered).then(trade_id).alias("trade_id"),
            "ts_log",
            "log_offset",
            checked=checked,
        )
        .filter(pl.col("checked") & (pl.col("sequence").is_not_null() | pl.col("trade_id").is_not_null()))
        .drop("checked")
    )


def identity_hash(identified: pl.DataFrame) -> pl.Series:
    """Return a 64-bit hash of each identity; comparable within one process only."""
    return identified.select(IDENTITY).hash_rows(_SEED).alias(KEY)


def with_identity(rows: pl.DataFrame, record_type: RecordType, rules: IdentityRules) -> pl.DataFrame:
    """Return what `identities` does, with the hash of each identity."""
    identified = identities(rows, record_type, rules)
    return identified.with_columns(identity_hash(identified))


def content_hash(rows: pl.DataFrame, record_type: RecordType) -> pl.Series:
    """Return a 64-bit hash of what the venue said in each row; comparable within one process only."""
    types = polars_schema(record_type)
    columns = []
    for name in content_source(record_type):
        if isinstance(types[name], pl.List):
            columns.append(pl.col(name).list.join(_SEPARATOR, ignore_nulls=False))
            columns.append(pl.col(name).list.len().alias(f"{name} length"))
        else:
            columns.append(pl.col(name).cast(types[name]))
    return rows.select(columns).hash_rows(_SEED).alias(CONTENT)


def decision_source(record_type: RecordType) -> list[str]:
    """Return the stored columns that `with_content` needs of a row: identity, content, log time and offset."""
    names = [*identity_source(record_type), "ts_log", "log_offset", *content_source(record_type)]
    return list(dict.fromkeys(names))


def with_content(rows: pl.DataFrame, record_type: RecordType, rules: IdentityRules) -> pl.DataFrame:
    """Return what `with_identity` does, with the hash of each row's content."""
    named = with_identity(rows, record_type, rules)
    return named.with_columns(content_hash(rows[named["place"]], record_type))


def _texts(names: frozenset[str]) -> pl.Series:
    return pl.Series(sorted(names), dtype=pl.String).implode()
