"""The bounded loop around a conditional append, which conflicts and unknown outcomes need."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pyiceberg.exceptions import CommitFailedException

from k2.common.errors import UnavailableError
from k2.storage.failures import as_k2_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings

Result = TypeVar("Result")


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


def until_known(
    attempt: Callable[[int], Result], settings: CatalogSettings, clock: Clock, *, doing: str, advice: str
) -> Result:
    """Return what the first attempt with a known outcome returns; each is given its number and looks at the head anew.

    Raises:
        UnavailableError: the outcome is still unknown after all attempts; the text ends with `advice`.
        K2Error: what an attempt raises, other than that something is unavailable now.
    """
    failure: Exception | None = None
    for number in attempts(settings, clock):
        try:
            return attempt(number)
        except CommitFailedException as error:  # someone else was faster: look again
            failure = error
        except Exception as error:  # the outcome is unknown: the next look at the head tells
            failure = as_k2_error(error, doing)
            if failure is None or (failure is error and not isinstance(error, UnavailableError)):
                raise
            if not isinstance(failure, UnavailableError):
                raise failure from error
    raise UnavailableError(
        f"{doing}: not known to be in the table after all attempts; {advice}. Last: {failure}", dependency="catalog"
    ) from failure
