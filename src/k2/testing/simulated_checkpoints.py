"""Checkpoints of gap ledgers in memory, shared as by workers of one machine; some are lost and some are out of date."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from k2.ingestion.sequences.checkpoints import decoded, encoded

if TYPE_CHECKING:
    from k2.ingestion.sequences.checkpoints import Checkpoint, CheckpointPlace

_OF: Final = ["simulated"]


class SimulatedCheckpoints:
    """Keeps the text of each, so that nobody shares a memory with the one who saved it."""

    def __init__(self, seed: int, *, lost: float = 0.2, not_saved: float = 0.3) -> None:
        """`lost` and `not_saved` are the shares of loads that find nothing and of savings that are left out."""
        self._random = random.Random(seed)  # noqa: S311 a simulation must be repeatable
        self._lost = lost
        self._not_saved = not_saved
        self._texts: dict[CheckpointPlace, bytes] = {}
        self.found = 0

    def load(self, place: CheckpointPlace) -> Checkpoint | None:
        """Return the last one that was saved, if it is not lost."""
        text = self._texts.get(place)
        if text is None or self._random.random() < self._lost:
            return None
        self.found += 1
        return decoded(_OF, text)

    def save(self, place: CheckpointPlace, checkpoint: Checkpoint) -> None:
        """Keep it, unless it is left out."""
        if self._random.random() >= self._not_saved:
            self._texts[place] = encoded(_OF, checkpoint)
