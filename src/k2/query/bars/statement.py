"""The statement that turns trades into bars: those of the table's files and those in memory, in one aggregation.

It consists of fixed text and numbered names; every value is bound (so S608 does not apply).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from k2.common.units import NS_PER_DAY
from k2.query.scan import Condition, files_source
from k2.schemas.records import ORDER, TRADES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.query.bars.rules import BarRule
    from k2.query.certificate import AsOf, PartitionRead

MEMORY: Final = "k2_memory"
"""The table of the rows that are not read from files; columns TRADE and ADDED."""
SPANS: Final = "k2_spans"
"""The table of the spans of all exchanges."""
TRADE: Final = ("exchange", "trading_date", *ORDER, "price", "quantity", "conditions")
ADDED: Final = {"from_log": "false", "shown": "true", "amended": "false", "records": "1"}
"""What else a row says, and what it is of a row of a file: that nobody amended."""
_VALUE: Final = (
    "sum(price * quantity) FILTER (WHERE kept) AS value_whole, 0::DECIMAL(38,0) AS value_0, 0::DECIMAL(38,10) AS "
    "value_10, 0::DECIMAL(38,12) AS value_12"
)
_VALUE_IN_PARTS: Final = (
    "sum(price_part * quantity_part) FILTER (WHERE kept) AS value_whole, sum(price_whole * quantity_whole) FILTER "
    "(WHERE kept) AS value_0, sum(price_whole * quantity_part) FILTER (WHERE kept) AS value_10, sum(price_part * "
    "quantity_whole) FILTER (WHERE kept) AS value_12"
)
"""Whole numbers and fractions apart, since a sum of whole products has 16 digits before its point."""
_PARTS: Final = (
    ", trunc(price)::DECIMAL(17,0) AS price_whole, (price - trunc(price))::DECIMAL(13,12) AS price_part, "
    "trunc(quantity)::DECIMAL(19,0) AS quantity_whole, (quantity - trunc(quantity))::DECIMAL(11,10) AS quantity_part"
)
VALUES: Final = ("value_whole", "value_0", "value_10", "value_12")
"""The columns whose sum is the sum of price times quantity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarsWanted:
    """What the statement depends on, besides the rows."""

    step_ns: int
    bars_max: int
    rules: Mapping[str, BarRule]
    """By exchange, what keeps prints out; empty where all count."""
    partitions: Sequence[PartitionRead]
    token: AsOf | None


def bars_statement(wanted: BarsWanted, files: Condition | None, *, in_parts: bool) -> tuple[str, dict[str, Any]]:
    """Return the statement that yields raw bars in order, one more than allowed at most, and its values.

    `files` says which rows of the files are taken as they are; None where no file is read. Prices times quantities are
    summed `in_parts` where they are too large for one sum.
    """
    counted = _regular(wanted.rules)
    unsettled = _unsettled(wanted.token)
    strays = _strays(wanted.partitions)
    names = ", ".join(TRADE)
    sources = [f"SELECT {names}, {', '.join(ADDED)} FROM {MEMORY}"]  # noqa: S608  # names are ours
    values: dict[str, Any] = {"step": wanted.step_ns, "most": wanted.bars_max + 1}
    if files is not None:
        added = ", ".join(f"{value} AS {name}" for name, value in ADDED.items())
        sources.append(f"SELECT {names}, {added} FROM {files_source(TRADES)} WHERE {files.sql}")  # noqa: S608  # names are ours
        values |= files.values
    place = f"{{{', '.join(f'{name!r}: {name}' for name in (*ORDER, 'price', 'trading_date'))}}}"
    statement = f"""
WITH trades AS ({" UNION ALL ".join(sources)}),
placed AS (
  SELECT trades.*, origin_ns + (ts_event_ns - origin_ns) // $step * $step AS bar_start_ns, until_ns,
    {counted.sql} AS regular, regular AND shown AS kept, (from_log OR {unsettled.sql}) AS unsettled,
    {strays.sql} AS stray {_PARTS if in_parts else ""}
  FROM trades LEFT JOIN {SPANS} AS spans ON trades.exchange = spans.exchange
    AND ts_event_ns // {NS_PER_DAY} = spans.day AND ts_event_ns >= spans.from_ns AND ts_event_ns < spans.to_ns
)
SELECT exchange, bar_start_ns, least(bar_start_ns + $step, until_ns) AS bar_end_ns,
  min({place}) FILTER (WHERE kept) AS first, max({place}) FILTER (WHERE kept) AS last,
  max(price) FILTER (WHERE kept) AS high, min(price) FILTER (WHERE kept) AS low,
  sum(quantity) FILTER (WHERE kept) AS volume, {_VALUE_IN_PARTS if in_parts else _VALUE},
  count(*) FILTER (WHERE kept) AS trade_count, count(*) FILTER (WHERE shown AND NOT kept) AS excluded_count,
  count(*) FILTER (WHERE kept AND from_log) AS from_log, sum(records)::BIGINT AS revision,
  coalesce(bool_or(amended) FILTER (WHERE regular), false) AS amended,
  coalesce(bool_or(unsettled) FILTER (WHERE regular), false) AS unsettled,
  array_agg(DISTINCT log_id) FILTER (WHERE stray) AS strays
FROM placed GROUP BY exchange, bar_start_ns, until_ns ORDER BY bar_start_ns, exchange LIMIT $most"""  # noqa: S608  # names are ours
    return statement, {**values, **counted.values, **unsettled.values, **strays.values}


def _regular(rules: Mapping[str, BarRule]) -> Condition:
    """Return which prints are regular: of each exchange with codes, those that have no other code; and in hours."""
    if not rules:
        return Condition()
    cases: list[str] = []
    values: dict[str, Any] = {}
    for number, (exchange, rule) in enumerate(rules.items()):
        if rule.conditions is not None:
            cases.append(f"WHEN $exchange_{number} THEN list_has_all($codes_{number}, coalesce(conditions, []))")
            values |= {f"exchange_{number}": exchange, f"codes_{number}": list(rule.conditions)}
    by_code = f"CASE trades.exchange {' '.join(cases)} ELSE true END" if cases else "true"
    return Condition(f"(in_hours AND {by_code})", values)


def _unsettled(token: AsOf | None) -> Condition:
    """Return which stored rows were not stored yet, or deferred, when the token was made: then they were the log's."""
    if token is None:
        return Condition("false")
    clauses: list[str] = []
    values: dict[str, Any] = {}
    above = [(log_id, partition, seam, None) for log_id, partition, seam, _ in token.partitions]
    for number, (log_id, partition, start, end) in enumerate([*above, *token.deferred]):
        values |= {f"ul{number}": log_id, f"up{number}": partition, f"us{number}": start}
        until = ""
        if end is not None:
            values[f"ue{number}"] = end
            until = f" AND log_offset < $ue{number}"
        clauses.append(f"(log_id = $ul{number} AND log_partition = $up{number} AND log_offset >= $us{number}{until})")
    return Condition(f"({' OR '.join(clauses) or 'false'})", values)


def _strays(partitions: Sequence[PartitionRead]) -> Condition:
    """Return which rows are from partitions that were not to be read."""
    clauses: list[str] = []
    values: dict[str, Any] = {}
    for number, item in enumerate(partitions):
        values |= {f"rl{number}": item.log_id, f"rp{number}": item.partition}
        clauses.append(f"(log_id = $rl{number} AND log_partition = $rp{number})")
    return Condition(f"NOT ({' OR '.join(clauses) or 'false'})", values)
