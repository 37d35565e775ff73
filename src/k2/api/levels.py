"""The level of degradation that the workers have told, and what the API leaves out at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.api.weights import Weight
from k2.common.degradation import DegradationLevel
from k2.common.errors import OverloadedError

if TYPE_CHECKING:
    from k2.common.announcing import LevelAnnouncement, LevelBoard


class PlatformLevel:
    """Asks the board for each question; None in place of a board stands for a platform that tells no level."""

    def __init__(self, board: LevelBoard | None, *, retry_after_seconds: float) -> None:
        self._board = board
        self._retry_after_seconds = retry_after_seconds

    def told(self) -> LevelAnnouncement | None:
        """Return what the worker with the highest level says; None where no worker is heard."""
        return None if self._board is None else self._board.current()

    @property
    def level(self) -> DegradationLevel:
        """Return the level in force: NORMAL where no worker is heard."""
        told = self.told()
        return DegradationLevel.NORMAL if told is None else told.level

    @property
    def skips_enrichment(self) -> bool:
        """Say whether what an answer can do without is left out: joins with reference data, optional statistics."""
        return self.level >= DegradationLevel.SOFT

    def admit(self, weight: Weight) -> None:
        """Let a question through, or refuse it.

        Raises:
            OverloadedError: it is heavy, and the platform is at CIRCUIT_BREAK.
        """
        told = self.told()
        if told is None or told.level < DegradationLevel.CIRCUIT_BREAK or weight == Weight.LIGHT:
            return
        raise OverloadedError(
            f"the platform is at {told.level.name} ({told.reason}): heavy questions are refused until it is over, "
            "light ones are answered; ask for a shorter range (K2_API__LIGHT_WINDOW_MINUTES), or later",
            dependency="platform",
            retry_after_seconds=self._retry_after_seconds,
            reason="circuit_break",
        )
