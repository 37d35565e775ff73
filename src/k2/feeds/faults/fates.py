"""What becomes of each number: in its place, withheld, late or twice; and where numbers begin again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from k2.common.units import NS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from k2.feeds.faults.rates import FaultRates
    from k2.feeds.faults.streams import Numbered, Streams

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Barrier:
    """A packet that nothing of its stream may be late beyond: its numbers begin again, or it is silent, from there."""

    code: int
    packet: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Numbers that begin again at a record."""

    at: int
    last: int
    shift: int
    injected: bool


@dataclass(slots=True)
class OpenMute:
    """A stream that is silent."""

    code: int
    numbering: int
    from_ns: int
    until_ns: int
    first: int
    last: int
    records: int = 0


@dataclass(frozen=True, slots=True)
class Fates:
    """The fate of each record of a batch; all of a packet's records share it."""

    shift: Ints
    numbering: Ints
    muted: Flags
    dropped: Flags
    moved: Flags
    doubled: Flags
    cancelled: Flags
    target: Ints
    """Before which packet a late record or a copy is sent."""
    cancel_target: Ints
    resets: list[Reset]
    barriers: list[Barrier]

    @property
    def withheld(self) -> Flags:
        """Whether a record is not sent."""
        return np.asarray(self.muted | self.dropped)


class FateDraw:
    """Draws fates, batch after batch."""

    def __init__(
        self, rates: FaultRates, streams: Streams, *, on_muted: Callable[[OpenMute, int | None], None]
    ) -> None:
        """Begin; `on_muted` is told of each mute that is over, with the time of the event that ended it."""
        self._rates = rates
        self._streams = streams
        self._on_muted = on_muted
        self._mutes: dict[int, OpenMute] = {}

    def fates(self, numbered: Numbered) -> Fates:
        """Return the fates of the next batch."""
        shift, began, numbering = (
            self._streams.carried(name)[numbered.code].copy() for name in ("shift", "began", "numbering")
        )
        muted = np.zeros(len(numbered.code), np.bool_)
        walk = _Walk(self._rates, self._streams, numbered, shift, began, numbering, muted, self._mutes)
        walk.run()
        for name, values in (("shift", shift), ("began", began), ("numbering", numbering)):
            final = numbered.starts[1:] - 1
            self._streams.carried(name)[numbered.code[final]] = values[final]
        for mute, ended_ns in walk.over:
            self._on_muted(mute, ended_ns)
        return self._drawn(numbered, walk)

    def end(self) -> None:
        """Say that the feed is over: streams that are silent stay so."""
        for mute in self._mutes.values():
            self._on_muted(mute, None)
        self._mutes.clear()

    def _drawn(self, numbered: Numbered, walk: _Walk) -> Fates:
        rates, draw = self._rates, self._streams.draw
        fate = draw("fate", numbered)
        free = (numbered.packet != walk.began) & ~walk.muted
        dropped = free & (fate < rates.gaps)
        moved = free & ~dropped & (fate < rates.gaps + rates.reorder)
        doubled = free & ~dropped & ~moved & (fate < rates.gaps + rates.reorder + rates.duplicates)
        late = np.floor(draw("delay", numbered) * rates.reorder_span).astype(np.int64)
        cancel_late = np.floor(draw("cancel_delay", numbered) * rates.reorder_span).astype(np.int64)
        return Fates(
            shift=walk.shift,
            numbering=walk.numbering,
            muted=walk.muted,
            dropped=dropped,
            moved=moved,
            doubled=doubled,
            cancelled=~walk.muted & ~moved & (draw("cancel", numbered) < rates.cancels),
            target=numbered.packet + 1 + late + moved,
            cancel_target=numbered.packet + 1 + cancel_late,
            resets=walk.resets,
            barriers=walk.barriers,
        )


class _Walk:
    """Goes through the few records of a batch at which a stream is reset or falls silent."""

    def __init__(
        self,
        rates: FaultRates,
        streams: Streams,
        numbered: Numbered,
        shift: Ints,
        began: Ints,
        numbering: Ints,
        muted: Flags,
        mutes: dict[int, OpenMute],
    ) -> None:
        self._rates = rates
        self._numbered = numbered
        self.shift = shift
        self.began = began
        self.numbering = numbering
        self.muted = muted
        self._mutes = mutes
        later = numbered.is_head & (numbered.packet > 1)
        self._resets = later & (streams.draw("reset", numbered) < rates.resets)
        self._silences = later & (streams.draw("mute", numbered) < rates.mute)
        self._ends = numbered.ends
        self.resets: list[Reset] = []
        self.barriers: list[Barrier] = []
        self.over: list[tuple[OpenMute, int | None]] = []

    def run(self) -> None:
        if self._mutes:
            for start, _ in self._numbered.groups():
                mute = self._mutes.get(int(self._numbered.code[start]))
                if mute is not None:
                    self._keep_silent(mute, start)
        for at in np.flatnonzero(self._resets | self._silences | self._numbered.begins_anew).tolist():
            if self.muted[at]:
                continue
            if self._numbered.begins_anew[at]:
                self._begin_anew(at)
            elif self._resets[at] and self._numbered.packet[at] - self.began[at] >= self._rates.reset_after:
                self._reset(at, shift=int(self._numbered.sequence[at]) - 1, injected=True)
            elif self._silences[at] and self._numbered.packet[at] != self.began[at]:
                self._silence(at)

    def _begin_anew(self, at: int) -> None:
        """End an injected numbering where the feed begins its own again."""
        if self.shift[at]:
            self._reset(at, shift=0, injected=False)

    def _reset(self, at: int, *, shift: int, injected: bool) -> None:
        end, packet = int(self._ends[at]), int(self._numbered.packet[at])
        code = int(self._numbered.code[at])
        last = int(self._numbered.before[at] - self.shift[at])
        self.shift[at:end], self.began[at:end] = shift, packet
        self.numbering[at:end] += 1
        self.resets.append(Reset(at, last, shift, injected))
        self.barriers.append(Barrier(code, packet))

    def _silence(self, at: int) -> None:
        numbered = self._numbered
        code, began_ns = int(numbered.code[at]), int(numbered.time_ns[at])
        number = int(numbered.sequence[at] - self.shift[at])
        until_ns = began_ns + int(self._rates.mute_seconds * NS_PER_SECOND)
        mute = OpenMute(code, int(self.numbering[at]), began_ns, until_ns, number, number)
        self._mutes[code] = mute
        self.barriers.append(Barrier(code, int(numbered.packet[at])))
        self._keep_silent(mute, at)

    def _keep_silent(self, mute: OpenMute, start: int) -> None:
        """Withhold the records from `start` up to the first packet that begins after the silence."""
        numbered, end = self._numbered, int(self._ends[start])
        awake = numbered.is_head[start:end] & (numbered.time_ns[start:end] >= mute.until_ns)
        stop = start + int(np.argmax(awake)) if awake.any() else end
        if stop > start:
            self.muted[start:stop] = True
            mute.records += stop - start
            mute.last = int(numbered.sequence[stop - 1] - self.shift[stop - 1])
        if stop < end:
            del self._mutes[mute.code]
            self.over.append((mute, int(numbered.time_ns[stop])))
