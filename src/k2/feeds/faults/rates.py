"""What to inject, how often, and from which seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from k2.common.errors import ConfigurationError

FAULTS: Final = ("gaps", "duplicates", "reorder", "resets", "mute", "cancels")
RESET_AFTER: Final = 200
"""So many numbers, and a reset cannot be taken for a late message."""
_SPAN_MAX: Final = 100_000
_MUTE_SECONDS_MAX: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRates:
    """The chance of each fault at each number of a stream. A number is dropped, moved or doubled, never two of them."""

    gaps: float = 0.0
    duplicates: float = 0.0
    reorder: float = 0.0
    resets: float = 0.0
    mute: float = 0.0
    cancels: float = 0.0
    seed: int = 1
    reorder_span: int = 20
    """How many numbers of its stream a moved or doubled record is late at most."""
    mute_seconds: float = 30.0
    """How long a stream is silent, in the time of its events."""
    reset_after: int = RESET_AFTER
    """Numbers of a stream between two resets at least."""

    def __post_init__(self) -> None:
        """Refuse what is no chance."""
        for name in FAULTS:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"expected --{name} between 0 and 1, found {getattr(self, name)}")
        if self.gaps + self.duplicates + self.reorder > 1:
            raise ConfigurationError(
                "expected --gaps, --duplicates and --reorder to be at most 1 together, found "
                f"{self.gaps + self.duplicates + self.reorder:g}: each number has one fate"
            )
        if not 1 <= self.reorder_span <= _SPAN_MAX:
            raise ConfigurationError(f"expected --reorder-span from 1 to {_SPAN_MAX:,}, found {self.reorder_span}")
        if not 0 < self.mute_seconds <= _MUTE_SECONDS_MAX:
            raise ConfigurationError(
                f"expected --mute-seconds above 0 and at most {_MUTE_SECONDS_MAX:,.0f}, found {self.mute_seconds}"
            )

    @property
    def any(self) -> bool:
        """Say whether anything is injected at all."""
        return any(getattr(self, name) for name in FAULTS)
