"""What the ledger of gaps holds of partitions: memory, what waits for what is left out, and a batch on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import polars as pl

    from k2.ingestion.sequences.batches import Memory, Observation, StreamChange
    from k2.storage.deferral import Predicate
    from k2.storage.seam import HaltedStream, LogPartition


@dataclass(frozen=True, slots=True)
class Remembered:
    """The memory of a partition whose rows below `next_offset` it has seen, as of a commit."""

    memory: Memory
    next_offset: int
    commit_sequence: int
    untold: tuple[StreamChange, ...] = ()
    """What happened below `next_offset` and is to be written with the next batch, however often that is begun."""
    is_partial: bool = False
    """Overload had left out something below `next_offset`: what is written of it since is not in it."""


class Undecided(NamedTuple):
    """What is left out of a partition, and from where on: there all is decided again once it is written.

    `since` is None where others left something out before: from where on is not known. `listed_since` is where the
    list began when it was first seen; what others had written of it by then lies before.
    """

    predicate: Predicate | None
    since: int | None
    listed_since: int


@dataclass(slots=True)
class Watched:
    """What watching a batch found; kept with the batch until it is committed or dropped."""

    seen: dict[LogPartition, Observation] = field(default_factory=dict)
    ends: dict[LogPartition, int] = field(default_factory=dict)
    undecided: dict[LogPartition, Undecided | None] = field(default_factory=dict)
    """What is left out of each partition from here on, None where nothing is."""
    topics: dict[LogPartition, str] = field(default_factory=dict)
    gap_events: pl.DataFrame | None = None
    is_recorded: bool = False
    released: list[tuple[LogPartition, HaltedStream]] = field(default_factory=list)
    """Streams that were halted, and go on."""
    halts: dict[LogPartition, tuple[HaltedStream, ...]] = field(default_factory=dict)
    """Streams that the batch shows to be halted: it is to be read again without them, and not to be recorded."""
