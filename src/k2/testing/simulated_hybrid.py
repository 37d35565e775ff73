"""A hybrid engine over a simulated market, driven round by round: nothing happens by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from k2.kafka.topics import Topic
from k2.query.hybrid_engine import HybridQueryEngine
from k2.query.kafka_tail import KafkaTail
from k2.query.known_log import KnownLog
from k2.query.request import QueryRequest
from k2.query.scan import Scanner
from k2.query.settings import QuerySettings
from k2.schemas.identity import IdentityRules
from k2.schemas.records import RECORD_TYPES
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from k2.query.bars.rules import BarRule
    from k2.query.request import Answer
    from k2.testing.simulated_market import SimulatedMarket

SETTINGS = QuerySettings(catch_up_seconds_max=0, queue_seconds_max=0)
"""A question does not wait for the tail, since nothing moves meanwhile: what the tail lacks is read on demand."""


def topic(exchange: str, data_type: str = "trades", partitions: int = 2) -> Topic:
    """Return a topic as topics.yaml would have it."""
    return Topic(f"market.equities.{data_type}.{exchange}", "equities", data_type, exchange, partitions, {})


ASX: Final = topic("asx")
SIM: Final = topic("sim")
QUOTES: Final = topic("asx", "quotes")


@dataclass
class SimulatedHybrid:
    """The market, the tail that follows it, and the engine that answers."""

    market: SimulatedMarket
    tail: KafkaTail
    engine: HybridQueryEngine
    clock: ManualClock

    def close(self) -> None:
        """Close what holds threads or files."""
        self.tail.stop()
        self.engine.close()


def simulated_hybrid(
    market: SimulatedMarket,
    directory: Path,
    *,
    settings: QuerySettings = SETTINGS,
    most: Callable[[], int] = lambda: 1_000,
    bar_rules: Mapping[str, BarRule] | None = None,
) -> SimulatedHybrid:
    """Return an engine over `market`, whose files are in `directory`; `most` bounds what one poll of the tail gives."""
    clock = ManualClock()
    known = KnownLog(market, clock=clock, retry_seconds=0)
    decoders = {name: market.decoder(name) for name in RECORD_TYPES}
    tail = KafkaTail(
        market.topics,
        open_reader=lambda: market.open_reader(most),
        log_facts=known,
        tables=market,
        decoders=decoders,
        settings=settings,
        clock=clock,
    )
    engine = HybridQueryEngine(
        market.topics,
        tail=tail,
        planner=market,
        log_facts=known,
        open_reader=market.open_reader,
        decoders=decoders,
        scanner=Scanner(
            [str(directory)],
            memory_limit_bytes=settings.memory_limit_bytes,
            threads=1,
            seconds_max=settings.query_seconds_max,
        ),
        settings=settings,
        clock=clock,
        rules=IdentityRules(numbered=frozenset(topic.exchange for topic in market.topics)),
        bar_rules=bar_rules,
    )
    return SimulatedHybrid(market, tail, engine, clock)


def home(hybrid: SimulatedHybrid, symbol: str) -> int:
    """Return the partition of a symbol in a topic as wide as ASX."""
    return hybrid.tail.placement.own_partition(symbol, ASX.partitions)


def ask(hybrid: SimulatedHybrid, **fields: Any) -> Answer:  # Any: whatever a question has
    """Ask for the trades of BHP, unless `fields` say otherwise."""
    return hybrid.engine.query(QueryRequest(**{"data_type": "trades", "symbol": "BHP", **fields}))


def times(answer: Answer) -> list[int]:
    """Return the event times of an answer's rows."""
    found: list[int] = answer.table["ts_event_ns"].to_pylist()
    return found
