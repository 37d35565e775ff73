"""One lane's dealings with the ladder around a commit: whether it may be tried, and how it went."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from k2.common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.ingestion.overload.ladder import Ladder

T = TypeVar("T")


class SinkWatch:
    """Asks before a commit is tried, and tells how the try went; only the writer's thread uses it."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self._is_trying = False
        self._has_failed = False

    def may_try(self) -> bool:
        """Say whether to go on with a commit; once it was allowed, it is until the try is over."""
        self._is_trying = self._is_trying or self._ladder.may_try_sink()
        return self._is_trying

    def try_in_any_case(self) -> None:
        """Allow the next try: there will be no later one."""
        self._is_trying = True

    def told(self, action: Callable[[], T]) -> T:
        """Return what the action does; that the sink does not answer is told, and raised."""
        try:
            return action()
        except UnavailableError:
            self._is_trying, self._has_failed = False, True
            self._ladder.sink_failed()
            raise

    def succeeded(self) -> None:
        """Tell that the sink works."""
        self._is_trying = self._has_failed = False
        self._ladder.sink_succeeded()

    def given_up(self) -> None:
        """Let others try: nothing of this lane waits for the sink any more."""
        if self._has_failed or self._is_trying:
            self.succeeded()
