"""Learns how long each stream is silent at times, and how long a silence is unlikely.

The gaps between arrivals are kept as a histogram over powers of the root of 2, which forgets: bounded memory, whatever
the stream. Its tail above a high threshold u is taken as exponential, with the mean excess as its scale, so that a gap
is longer than x with the chance share(u) exp(-(x - u) / mean excess); the limit is x for the chance allowed. Source:
S. Coles, "An Introduction to Statistical Modeling of Extreme Values" (2001), chapter 4: threshold exceedances, with
shape 0. The mean excess is taken two standard errors high, since it is estimated from few gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]

NEVER: Final = 2**62
_BUCKETS: Final = 48
"""From a millisecond to four hours."""
_UNIT_NS: Final = 1_000_000
_PER_OCTAVE: Final = 2
_TAIL_MIN: Final = 25
_TAIL_SHARE: Final = 0.02
_STANDARD_ERRORS: Final = 2.0
_CAPACITY: Final = 64
_EDGES: Final = np.where(np.arange(_BUCKETS) > 0, _UNIT_NS * 2.0 ** (np.arange(_BUCKETS) / _PER_OCTAVE), 0.0)


@dataclass(frozen=True, slots=True)
class RhythmRules:
    """Where silence begins to be unlikely."""

    chance: float = 1e-9
    """Of a gap, to be longer than the limit by itself."""
    gaps_min: int = 200
    """Gaps after which a stream is known well enough."""
    gaps_memory: int = 5_000
    """Gaps after which half of what was learned is forgotten."""
    silence_ns_min: int = 2_000_000_000


class Rhythms:
    """The rhythms of streams by number; times are of each stream's own clock."""

    def __init__(self, rules: RhythmRules) -> None:
        self._rules = rules
        self._count = np.zeros((_CAPACITY, _BUCKETS), np.float32)
        self._sum = np.zeros((_CAPACITY, _BUCKETS), np.float64)
        self.last_ns = np.full(_CAPACITY, -NEVER, np.int64)
        self.limit_ns = np.full(_CAPACITY, NEVER, np.int64)
        """How long each stream may be silent; NEVER while it is not known."""
        self._session = np.full(_CAPACITY, -1, np.int64)

    def make_room(self, streams: int) -> None:
        """See that numbers below `streams` can be used."""
        while streams > len(self.last_ns):
            self._count = np.concatenate([self._count, np.zeros_like(self._count)])
            self._sum = np.concatenate([self._sum, np.zeros_like(self._sum)])
            self.last_ns = np.concatenate([self.last_ns, np.full_like(self.last_ns, -NEVER)])
            self.limit_ns = np.concatenate([self.limit_ns, np.full_like(self.limit_ns, NEVER)])
            self._session = np.concatenate([self._session, np.full_like(self._session, -1)])

    def heard(self, stream: Ints, time_ns: Ints, session: Ints) -> None:
        """Learn from arrivals, sorted by stream and then time; a gap between two sessions teaches nothing."""
        if not len(stream):
            return
        heads = np.flatnonzero(np.concatenate([[True], stream[1:] != stream[:-1]]))
        before, session_before = _shifted(time_ns), _shifted(session)
        owner = stream[heads]
        before[heads], session_before[heads] = self.last_ns[owner], self._session[owner]
        gap = np.clip(time_ns - before, 0, self.limit_ns[stream])  # a mute must not pass for rhythm
        taught = session == session_before
        bucket = np.searchsorted(_EDGES, gap, side="right") - 1
        final = np.append(heads[1:], len(stream)) - 1
        place = np.repeat(np.arange(len(heads)) * _BUCKETS, final - heads + 1)[taught] + bucket[taught]
        shape = (len(heads), _BUCKETS)
        self._count[owner] += np.bincount(place, minlength=len(heads) * _BUCKETS).reshape(shape)
        self._sum[owner] += np.bincount(place, weights=gap[taught], minlength=len(heads) * _BUCKETS).reshape(shape)
        self.last_ns[owner] = np.maximum(self.last_ns[owner], time_ns[final])
        self._session[owner] = session[final]
        self._forget(owner)
        self.limit_ns[owner] = self._limits(owner)

    def _forget(self, streams: Ints) -> None:
        full = streams[self._count[streams].sum(axis=1) > 2 * self._rules.gaps_memory]
        self._count[full] /= 2
        self._sum[full] /= 2

    def _limits(self, streams: Ints) -> Ints:
        """Return the silence that is as unlikely as the rules say."""
        count, total = self._count[streams].astype(np.float64), self._sum[streams]
        beyond, beyond_total = _from_above(count), _from_above(total)
        gaps = beyond[:, 0]
        enough = beyond >= np.maximum(_TAIL_MIN, _TAIL_SHARE * gaps)[:, None]
        at = np.where(enough.any(axis=1), enough.shape[1] - 1 - np.argmax(enough[:, ::-1], axis=1), 0)
        rows = np.arange(len(streams))
        tail = np.maximum(beyond[rows, at], 1.0)
        excess = np.maximum(beyond_total[rows, at] / tail - _EDGES[at], 0.0)
        scale = excess * (1 + _STANDARD_ERRORS / np.sqrt(tail))
        odds = np.maximum(tail / np.maximum(gaps, 1.0) / self._rules.chance, 1.0)
        limit = np.maximum(_EDGES[at] + scale * np.log(odds), self._rules.silence_ns_min)
        known = (gaps >= self._rules.gaps_min) & enough.any(axis=1)
        return np.where(known, np.minimum(limit, NEVER), NEVER).astype(np.int64)


def _from_above(values: Floats) -> Floats:
    """Return for each bucket the sum of it and those above."""
    return np.asarray(np.cumsum(values[:, ::-1], axis=1)[:, ::-1])


def _shifted(values: Ints) -> Ints:
    return np.concatenate([values[:1], values[:-1]])
