"""The fault kinds of the simulation: how often each thing goes wrong in a run of that kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from k2.common import crash_points


@dataclass(frozen=True, slots=True)
class Plan:
    """One kind of run. Rates are chances: of a disturbance per step, of a fault each time that its place is reached.

    `numbers` are those of the column `faults` in docs/operations/guarantees.md.
    """

    name: str
    numbers: str
    workers: int = 2
    crash_point: str = ""
    crash: float = 0.0
    kill: float = 0.0
    freeze: float = 0.0
    overtake: float = 0.0
    """Chance that others do something between a writer's look at the head and its swap."""
    overlap: bool = False
    """Every partition belongs to two members at once."""
    rebalance: float = 0.03
    reply_lost: float = 0.0
    swap_delayed: float = 0.0
    broker: float = 0.0
    registry: float = 0.0
    catalog: float = 0.0
    warehouse: float = 0.0
    side_table: float = 0.0
    expire: float = 0.0
    bad: float = 0.05
    flush_too_slow: float = 0.0
    burst: int = 40


EVERYTHING: Final = Plan(
    "everything at once",
    "1-13, 15-17, 20, 25",
    workers=3,
    crash_point="*",
    crash=0.02,
    kill=0.02,
    freeze=0.02,
    overtake=0.1,
    rebalance=0.05,
    reply_lost=0.1,
    swap_delayed=0.1,
    broker=0.02,
    registry=0.1,
    catalog=0.1,
    warehouse=0.1,
    side_table=0.1,
    expire=0.03,
    bad=0.2,
    flush_too_slow=0.2,
)

PLANS: Final[tuple[Plan, ...]] = (
    *(
        Plan(f"crash at {point}", "1-8", crash_point=point, crash=0.2, rebalance=0.1)
        for point in sorted(crash_points.INGEST_NAMES)
    ),
    Plan("kill -9", "1-8", kill=0.06),
    Plan("zombie resumes late", "9", workers=3, freeze=0.05),
    Plan("zombie inside a commit", "9", workers=3, overtake=0.5),
    Plan("overlapping writers", "10", workers=3, overlap=True, overtake=0.2),
    Plan("commit reply lost", "11", reply_lost=0.4),
    Plan("commit reply delayed", "11", swap_delayed=0.4, overtake=0.1),
    Plan("rebalance storm", "12", workers=3, rebalance=0.4, flush_too_slow=0.3),
    Plan("broker down", "13", broker=0.06),
    Plan("registry down", "15", registry=0.4),
    Plan("catalog down", "16", catalog=0.4),
    Plan("no space left", "17", warehouse=0.4),
    Plan("dead letters, their table down", "20", bad=0.5, side_table=0.4, broker=0.03),
    Plan("burst on a slow consumer", "22", workers=1, burst=150, flush_too_slow=0.5),
    Plan("expiry beside lost replies", "25", expire=0.2, reply_lost=0.3),
    EVERYTHING,
)


def plan_named(name: str) -> Plan:
    """Return a plan by name; KeyError if there is none."""
    return {plan.name: plan for plan in PLANS}[name]
