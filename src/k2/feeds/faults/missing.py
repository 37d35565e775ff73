"""Gathers numbers that are not sent into gaps, across batches: each is told once the stream has gone on, or ended."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from k2.feeds.faults.fates import Fates
    from k2.feeds.faults.streams import Numbered


@dataclass(slots=True)
class OpenGap:
    """Consecutive numbers of one numbering that are not sent."""

    code: int
    numbering: int
    first: int
    last: int
    records: int
    dropped: bool
    muted: bool

    @property
    def cause(self) -> str:
        """Why they are not sent."""
        return "both" if self.dropped and self.muted else "gap" if self.dropped else "mute"


class Told(Protocol):
    """Takes a gap that is whole."""

    def __call__(self, gap: OpenGap, *, tail: bool) -> None:
        """Take note; `tail`: no later number of its numbering was sent."""
        ...


class MissingNumbers:
    """The gaps of all streams that can still grow."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._open: dict[int, list[OpenGap]] = {}

    def note(self, numbered: Numbered, fates: Fates) -> None:
        """Take note of the next batch."""
        withheld = fates.withheld
        if not self._open and not withheld.any():
            return
        changes = np.flatnonzero(withheld[1:] != withheld[:-1]) + 1
        edges = np.unique(np.concatenate([numbered.starts, changes]))
        for start, end in pairwise(edges.tolist()):
            code = int(numbered.code[start])
            if withheld[start]:
                self._open_gaps(code, start, end, numbered, fates)
            elif code in self._open:
                self._close(code, int(fates.numbering[start]))

    def end(self) -> None:
        """Say that no stream goes on."""
        for gaps in self._open.values():
            for gap in gaps:
                self._told(gap, tail=True)
        self._open.clear()

    def _open_gaps(self, code: int, start: int, end: int, numbered: Numbered, fates: Fates) -> None:
        numbers = numbered.sequence[start:end] - fates.shift[start:end]
        jumps = np.flatnonzero((np.diff(numbers) != 0) & (np.diff(numbers) != 1)) + 1
        edges = [0, *jumps.tolist(), end - start]
        gaps = self._open.setdefault(code, [])
        for low, high in pairwise(edges):
            part = slice(start + low, start + high)
            gap = OpenGap(
                code,
                int(fates.numbering[start]),
                int(numbers[low]),
                int(numbers[high - 1]),
                high - low,
                dropped=bool(fates.dropped[part].any()),
                muted=bool(fates.muted[part].any()),
            )
            if gaps and gaps[-1].last in (gap.first - 1, gap.first):
                _grow(gaps[-1], gap)
            else:
                gaps.append(gap)

    def _close(self, code: int, numbering: int) -> None:
        for gap in self._open.pop(code):
            self._told(gap, tail=gap.numbering != numbering)


def _grow(gap: OpenGap, more: OpenGap) -> None:
    gap.last = more.last
    gap.records += more.records
    gap.dropped |= more.dropped
    gap.muted |= more.muted
