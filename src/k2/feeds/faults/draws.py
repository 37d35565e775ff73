"""Chance as a function: one number in [0, 1) a seed, fault, stream and place; the same however the feed is cut up.

Source of the mixing function: G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014 (SplitMix64).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Keys = NDArray[np.uint64]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

DRAWS: Final = ("fate", "delay", "reset", "mute", "cancel", "cancel_delay")
"""What is drawn at each place, each independently of the others."""
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT: Final = np.uint64(31)
_UNUSED_BITS: Final = np.uint64(11)
_RESOLUTION: Final = 2.0**-53


def stream_keys(seed: int, data_type: str, stream: tuple[str | None, ...]) -> Keys:
    """Return a stream's key of each kind of draw."""
    return np.array(
        [
            int.from_bytes(hashlib.blake2b(repr((seed, draw, data_type, stream)).encode(), digest_size=8).digest())
            for draw in DRAWS
        ],
        dtype=np.uint64,
    )


def uniform(keys: Keys, places: Ints) -> Floats:
    """Return a number in [0, 1) for each key and place."""
    value = keys + places.astype(np.uint64) * _STEP
    for shift, factor in _MIX:
        value = (value ^ (value >> shift)) * factor
    value ^= value >> _LAST_SHIFT
    return np.asarray((value >> _UNUSED_BITS).astype(np.float64) * _RESOLUTION)
