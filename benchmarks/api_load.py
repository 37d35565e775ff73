"""A client that asks the API at a rate, whatever comes back, in a process of its own; prints what it was answered."""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
import time
from dataclasses import asdict, dataclass

SYMBOLS = 100


@dataclass(frozen=True)
class Plan:
    """Where to ask, how often and for how long; one of `kinds` is drawn: paths by name, `{symbol}` in them."""

    port: int
    key: str
    seconds: float
    per_second: float
    connections: int
    kinds: dict[str, str]
    weights: list[float]
    seed: int


@dataclass(frozen=True)
class Answered:
    """One request: its kind, the status (0: the connection was cut), whether it named a pause, and how long it took."""

    kind: str
    status: int
    names_pause: bool
    seconds: float


class _Client(threading.Thread):
    """Asks on one connection, one request after the other, each at its time or as soon as the one before is over."""

    def __init__(self, plan: Plan, number: int, until: float) -> None:
        super().__init__(daemon=True)
        self._plan = plan
        self._random = random.Random(plan.seed * 1_000 + number)
        self._pause = plan.connections / plan.per_second
        self._next = time.perf_counter() + self._pause * self._random.random()
        self._until = until
        self.answered: list[Answered] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._plan.port, timeout=60)
        names = list(self._plan.kinds)
        while (now := time.perf_counter()) < self._until:
            if now < self._next:
                time.sleep(min(self._next - now, self._until - now))
                continue
            self._next = max(self._next + self._pause, now - 1.0)  # what could not be asked in time is not made up for
            kind = self._random.choices(names, self._plan.weights)[0]
            path = self._plan.kinds[kind].format(symbol=f"SIM{self._random.randrange(SYMBOLS):03d}")
            began = time.perf_counter()
            try:
                connection.request("GET", path, headers={"X-API-Key": self._plan.key})
                response = connection.getresponse()
                response.read()
                status, names_pause = response.status, response.headers["Retry-After"] is not None
            except (OSError, http.client.HTTPException):
                connection.close()
                status, names_pause = 0, False
            self.answered.append(Answered(kind, status, names_pause, time.perf_counter() - began))
        connection.close()


def main() -> None:
    """Ask as the plan on the command line says."""
    plan = Plan(**json.loads(sys.argv[1]))
    until = time.perf_counter() + plan.seconds
    clients = [_Client(plan, number, until) for number in range(plan.connections)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    json.dump([asdict(each) for client in clients for each in client.answered], sys.stdout)


if __name__ == "__main__":
    main()
