"""What is known of the log between two looks at it: where each partition ended when, and that it is out of reach."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from k2.common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from k2.common.clock import Clock
    from k2.kafka.ports import LogIdentity, LogRange, TopicPartition
    from k2.query.ports import LogFacts

T = TypeVar("T")
_LOOKS_MAX: Final = 512
"""Looks remembered of a partition that grows: older ones are forgotten."""
_APART_SECONDS: Final = 0.25
"""Looks closer than this take the place of one another, so that many questions do not push old looks out."""


class KnownLog:
    """The log as others ask for it; remembers what it told.

    Once it was out of reach, one caller at a time tries it again, `retry_seconds` after the last failure at the
    earliest. All others hear of the failure at once, and do not wait for the broker as well.
    """

    def __init__(self, log_facts: LogFacts, *, clock: Clock, retry_seconds: float) -> None:
        self._log_facts = log_facts
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._looks: dict[TopicPartition, deque[tuple[float, int]]] = {}
        self._trouble: UnavailableError | None = None
        self._retry_at = 0.0
        self._trying = False
        self._lock = threading.Lock()

    def identities(self, topics: Iterable[str]) -> dict[str, LogIdentity]:
        """Return who each topic is; a topic that does not exist is left out."""
        names = list(topics)
        return self._asked(lambda: self._log_facts.identities(names))

    def ranges(self, topics: str | Iterable[str]) -> dict[TopicPartition, LogRange]:
        """Return the offsets [start, last stable offset) of each partition."""
        names = topics if isinstance(topics, str) else list(topics)
        asked_at = self._clock.monotonic()
        found = self._asked(lambda: self._log_facts.ranges(names))
        self._remember(found, asked_at)
        return found

    def seconds_behind(self, key: TopicPartition, end: int) -> float | None:
        """Return how long ago the log is known to have ended at `end` or below: records since then may be missing.

        None where no look at the log is remembered that tells.
        """
        with self._lock:
            looks = self._looks.get(key, ())
            at = next((at for at, found in reversed(looks) if found <= end), None)
        return None if at is None else self._clock.monotonic() - at

    def _remember(self, ranges: Mapping[TopicPartition, LogRange], at: float) -> None:
        with self._lock:
            for key, extent in ranges.items():
                looks = self._looks.setdefault(key, deque(maxlen=_LOOKS_MAX))
                if looks and extent.end < looks[-1][1] and at >= looks[-1][0]:
                    looks.clear()  # the log is shorter than it was: nothing that was known of it holds
                if looks and (at < looks[-1][0] or extent.end < looks[-1][1]):
                    continue  # another caller's look came between
                if looks and (extent.end == looks[-1][1] or _is_close(looks, at)):
                    looks.pop()
                looks.append((at, extent.end))

    def _asked(self, ask: Callable[[], T]) -> T:
        with self._lock:
            trouble = self._trouble
            if trouble is not None:
                if self._trying or self._clock.monotonic() < self._retry_at:
                    raise _again(trouble)
                self._trying = True
        try:
            found = ask()
        except UnavailableError as error:
            self._settle(error)
            raise
        except BaseException:
            self._settle(None)
            raise
        self._settle(None)
        return found

    def _settle(self, trouble: UnavailableError | None) -> None:
        with self._lock:
            self._trouble = trouble
            self._trying = False
            self._retry_at = self._clock.monotonic() + self._retry_seconds


def _is_close(looks: deque[tuple[float, int]], at: float) -> bool:
    """Say whether the last look may give way to one at this time: the one before it is close enough to both."""
    return len(looks) > 1 and at - looks[-2][0] < _APART_SECONDS


def _again(trouble: UnavailableError) -> UnavailableError:
    """Return the same failure anew: an error that many threads raise would gather all their traces."""
    return UnavailableError(
        str(trouble),
        dependency=trouble.dependency,
        retry_after_seconds=trouble.retry_after_seconds,
        reason=trouble.reason,
    )
