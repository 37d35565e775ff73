"""Subscribers that follow one symbol each, in a process of their own; prints what each has got, and how late."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field

from k2.client import AsyncK2Client


@dataclass(frozen=True)
class Plan:
    """What to follow from where, until all records are there; each subscriber comes back so many times by force."""

    port: int
    key: str
    symbols: list[str]
    start_ns: int
    records: int
    """Of each symbol."""
    reconnects: int
    seconds_max: float


@dataclass
class Got:
    """What one subscriber has got: the venue's numbers in the order of arrival, and how late each was."""

    symbol: str
    numbers: list[int] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    reconnects: int = 0


async def _follow(client: AsyncK2Client, plan: Plan, symbol: str) -> Got:
    """Follow a symbol; leave in the middle of what comes, and come back with the last cursor."""
    got, cursor = Got(symbol), None
    at_once = plan.records // (plan.reconnects + 1)
    while len(got.numbers) < plan.records:
        events = client.stream(symbol, exchange="sim", start=str(plan.start_ns), cursor=cursor)
        async for event in events:
            now = time.time_ns()
            got.numbers += [row["sequence"] for row in event.rows]
            got.late_ms += [(now - row["ts_recv_ns"]) / 1e6 for row in event.rows]
            cursor = event.cursor or cursor
            is_due = len(got.numbers) >= (got.reconnects + 1) * at_once and got.reconnects < plan.reconnects
            if is_due or len(got.numbers) >= plan.records:
                got.reconnects += is_due
                break
        await events.aclose()  # type: ignore[attr-defined]  # it is a generator
    return got


async def _all(plan: Plan) -> list[Got]:
    async with AsyncK2Client(f"http://127.0.0.1:{plan.port}", plan.key) as client, asyncio.timeout(plan.seconds_max):
        return await asyncio.gather(*(_follow(client, plan, symbol) for symbol in plan.symbols))


def main() -> None:
    """Follow as the plan on the command line says."""
    plan = Plan(**json.loads(sys.argv[1]))
    json.dump([asdict(each) for each in asyncio.run(_all(plan))], sys.stdout)


if __name__ == "__main__":
    main()
