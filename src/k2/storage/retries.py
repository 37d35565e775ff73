"""The bounded loop around a conditional append, which conflicts and unknown outcomes need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings


def attempts(settings: CatalogSettings, clock: Clock) -> Iterator[int]:
    """Yield 1, 2, ... with a growing pause between, until the settings' number or time is used up."""
    deadline = clock.monotonic() + settings.commit_timeout_seconds
    pause = settings.commit_pause_seconds
    for attempt in range(1, settings.commit_attempts_max + 1):
        yield attempt
        if clock.monotonic() + pause >= deadline:
            return
        clock.sleep(pause)
        pause = min(pause * 2, settings.commit_pause_max_seconds)
