"""What one API key may take of the API: so many questions a second, and so many at once, the sending included."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2.api.problems import HttpProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k2.api.settings import ApiSettings
    from k2.common.clock import Clock


@dataclass(slots=True)
class _Use:
    """What a key has left of its burst, as of a moment, and what it has under way."""

    left: float
    as_of: float
    under_way: int = 0


class KeyLimits:
    """Counts by the public ids of keys that were accepted, so there are no more of them than keys."""

    def __init__(self, settings: ApiSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self.refused = 0

    @contextmanager
    def admitted(self, key_id: str) -> Iterator[None]:
        """Let one question of a key in, until the block ends.

        Raises:
            HttpProblemError: 429, where the key is over one of its limits; the header says when to ask again.
        """
        settings, now = self._settings, self._clock.monotonic()
        use = self._uses.setdefault(key_id, _Use(settings.key_burst_questions, now))
        use.left = min(settings.key_burst_questions, use.left + (now - use.as_of) * settings.key_questions_per_second)
        use.as_of = now
        if use.under_way >= settings.key_questions_at_once_max:
            raise self._refusal(
                f"expected at most {settings.key_questions_at_once_max} questions of one key at once "
                f"(K2_API__KEY_QUESTIONS_AT_ONCE_MAX), found {use.under_way} under way: wait for one of them",
                "key_concurrency",
                settings.retry_after_seconds,
            )
        if use.left < 1:
            raise self._refusal(
                f"expected at most {settings.key_questions_per_second:g} questions a second of one key, in bursts of "
                f"{settings.key_burst_questions} (K2_API__KEY_QUESTIONS_PER_SECOND): ask less often",
                "key_rate",
                (1 - use.left) / settings.key_questions_per_second,
            )
        use.left -= 1
        use.under_way += 1
        try:
            yield
        finally:
            use.under_way -= 1

    def _refusal(self, detail: str, reason: str, pause_seconds: float) -> HttpProblemError:
        self.refused += 1
        headers = {"Retry-After": str(max(1, math.ceil(pause_seconds)))}
        return HttpProblemError(429, "Too much of one key", detail, headers, reason=reason)
