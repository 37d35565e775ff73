"""What may become of the bad lines of a file: the choice that whoever imports it makes."""

from __future__ import annotations

from enum import Enum


class BadLines(Enum):
    """What becomes of a file with bad lines."""

    REFUSE = "refuse"
    """Nothing of the file is sent."""
    DEAD_LETTER = "dead-letter"
    """The bad lines go to the dead letters; the rest is imported."""
