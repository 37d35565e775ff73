"""The gap ledger against 100,000 injected faults, with crashes and rebalances: precision, recall, duplicates."""

from __future__ import annotations

from collections import Counter
from time import process_time
from unittest import mock

from benchmarks.report import Figure
from k2.common import crash_points, logging
from k2.testing.simulated_gaps import KINDS, OPENED, TOPIC, SimulatedGapLedger
from k2.testing.simulated_ingest import TOPICS, crash_at

SEEDS = 80
QUICK_SEEDS = 8
MESSAGES = 4_600
"""Of each of two partitions."""
FAULTS_MIN = 100_000


def measure(*, quick: bool) -> list[Figure]:
    """Run every seed, with one worker and with two in turns, and add up."""
    logging.configure(component="benchmarks", level="error")
    began, faults, sums, injected = process_time(), 0, Counter[str](), Counter[str]()
    for seed in range(QUICK_SEEDS if quick else SEEDS):
        world = SimulatedGapLedger(seed, messages=MESSAGES)
        with mock.patch.object(crash_points, "reached", crash_at(world)):
            _run(world, 1 + seed % 2, sums, injected)
        faults = sum(injected[kind] for kind in KINDS)
        print(
            f"up to seed {seed}: {faults:,} faults, {sums['crashes']:,} crashes, {sums['rebalances']:,} rebalances; of "
            f"{sums['told']:,} events {sums['right']:,} right, {sums['true'] - sums['right']:,} missed",
            flush=True,
        )
    wrong = sums["told"] - sums["right"]
    precision, recall = sums["right"] / sums["told"], sums["right"] / sums["true"]
    wanted = "" if quick else f"at least {FAULTS_MIN:,}"
    return [
        Figure("faults injected (gaps, reorderings, duplicates, resets, missing ends)", faults, "faults", wanted,
               met=None if quick else faults >= FAULTS_MIN),
        *(Figure(f"of these, {kind}", injected[kind], "faults") for kind in KINDS),
        Figure("crashes between", sums["crashes"], "crashes", "some", met=sums["crashes"] > 0),
        Figure("rebalances between", sums["rebalances"], "rebalances", "some", met=sums["rebalances"] > 0),
        Figure("numbers that the ledger opened", sums[OPENED], "numbers"),
        Figure("precision: of the ledger's events, by number, that are true", precision, "", "1.0", met=wrong == 0),
        Figure("recall: of the true events, by number, that the ledger has", recall, "", "1.0",
               met=sums["right"] == sums["true"]),
        Figure("false drops: records left out that are no duplicate", sums["false drops"], "records", "0",
               met=sums["false drops"] == 0),
        Figure("duplicates in the table", sums["doubled"], "rows", "0", met=sums["doubled"] == 0),
        Figure("CPU, all of the above", process_time() - began, "s"),
    ]  # fmt: skip


def _run(world: SimulatedGapLedger, workers: int, sums: Counter[str], injected: Counter[str]) -> None:
    references, faults = world.produce()
    messages = len(world.log.topics[TOPIC].partitions[0])
    world.live(workers, steps=messages)
    world.settle(steps_max=400 + messages // 10)
    world.fall_quiet()
    injected += faults
    for partition, reference in enumerate(references):
        found, true = world.found(partition), Counter(reference.events)
        sums["told"] += found.total()
        sums["true"] += true.total()
        sums["right"] += (found & true).total()
        sums[OPENED] += sum(count for (event, *_), count in found.items() if event == OPENED)
    rows = _rows(world)
    distinct = sum(len(reference.seen) for reference in references)
    sums["doubled"] += sum(rows.values()) - len(rows)
    sums["false drops"] += distinct - len(rows)
    sums["crashes"] += world.crashes
    sums["rebalances"] += world.rebalances


def _rows(world: SimulatedGapLedger) -> Counter[tuple[object, ...]]:
    """Return the rows of the table by partition, symbol, session and number."""
    columns = ("log_partition", "symbol", "trading_date", "sequence")
    table = world.tables.tables[TOPICS[TOPIC]]
    return Counter(row for frame in table.rows for row in frame.select(columns).rows())
