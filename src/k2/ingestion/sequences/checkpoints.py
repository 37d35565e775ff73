"""Checkpoints of the gap ledger's memory: what a partition's memory was after a commit, so that a restart is short.

A checkpoint is a shortcut and no truth: without it, or where it does not fit, the memory is rebuilt from the table.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import quote

from k2 import __version__
from k2.common.logging import get_logger
from k2.ingestion.sequences.batches import Memory, waits
from k2.ingestion.sequences.rules import NO_OFFSET, Hole, HoleStage, StreamState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from k2.common.clock import Clock
    from k2.ingestion.sequences.markers import Marker
    from k2.ingestion.sequences.rules import SequenceRules
    from k2.storage.seam import LogPartition

log = get_logger(__name__)

_FORMAT: Final = 1
"""Raised where the rules come to decide otherwise from the same settings: memory of before is then not believed."""
_REST_RATIO: Final = 50
"""How many times as long as a saving took nothing is saved: it costs 2 % of a thread's time, however large it is."""
_REST_SECONDS_AFTER_FAILURE: Final = 60.0
_FIELDS: Final = tuple(name for name in StreamState.__slots__ if name != "holes")


class CheckpointPlace(NamedTuple):
    """What a checkpoint is of: one partition's streams as one table holds them."""

    table: str
    table_uuid: str
    scope: str
    """The column that tells streams apart."""
    key: LogPartition


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The memory of a partition whose rows below `next_offset` it has seen, as of a commit."""

    memory: Memory
    next_offset: int
    commit_sequence: int


class Checkpoints(Protocol):
    """Where checkpoints are kept; used by one thread."""

    def load(self, place: CheckpointPlace) -> Checkpoint | None:
        """Return the last one that was saved by the same rules, None where there is none that can be read."""
        ...

    def save(self, place: CheckpointPlace, checkpoint: Checkpoint) -> None:
        """Keep it in place of the last one; it may be left out, since the next commit brings another."""
        ...


def fitting(saved: Checkpoint | None, markers: Sequence[Marker]) -> Checkpoint | None:
    """Return the checkpoint if the partition's `markers`, in order, go as far as those that it has counted.

    Where they do not, the topic of the markers was made anew since: offsets began again, and those that count now
    would be taken for old ones.
    """
    newest = markers[-1].offset if markers else NO_OFFSET
    return None if saved is None or saved.memory.marker > newest else saved


class NoCheckpoints:
    """Keeps nothing."""

    def load(self, place: CheckpointPlace) -> Checkpoint | None:
        """Return none."""
        del place
        return None

    def save(self, place: CheckpointPlace, checkpoint: Checkpoint) -> None:
        """Keep nothing."""


class CheckpointFiles:
    """One small file a partition, of which all workers that share the directory see the last one.

    A file is swapped whole and is not synced: what ends a process leaves it as it is, and what ends the machine may
    leave half of it, which its checksum shows.
    """

    def __init__(self, directory: Path, *, rules: SequenceRules, clock: Clock) -> None:
        """Keep the files in `directory`, which is made when it is needed; other rules make other memories."""
        self._directory = directory
        made_by = (_FORMAT, __version__, _FIELDS, Hole._fields, asdict(rules))
        self._rules = hashlib.sha256(repr(made_by).encode()).hexdigest()
        self._clock = clock
        self._not_before: dict[CheckpointPlace, float] = {}

    def load(self, place: CheckpointPlace) -> Checkpoint | None:
        """Read the file; see `Checkpoints`."""
        path = self._path(place)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("gap_checkpoint_unreadable", path=str(path), reason=str(error))
            return None
        checksum, _, text = data.partition(b"\n")
        if checksum != _checksum(text):
            log.warning("gap_checkpoint_unreadable", path=str(path), reason="its checksum does not fit")
            return None
        try:
            return decoded(self._of(place), text)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            log.warning("gap_checkpoint_unreadable", path=str(path), reason=f"{type(error).__name__}: {error}")
            return None

    def save(self, place: CheckpointPlace, checkpoint: Checkpoint) -> None:
        """Write the file, unless it was written a short time ago; see `Checkpoints`."""
        began = self._clock.monotonic()
        if began < self._not_before.get(place, began):
            return
        text = encoded(self._of(place), checkpoint)
        path = self._path(place)
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(_checksum(text) + b"\n" + text)
            beside.replace(path)
        except OSError as error:
            log.warning("gap_checkpoint_not_saved", path=str(path), reason=str(error))
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            self._not_before[place] = began + _REST_SECONDS_AFTER_FAILURE
            return
        took = self._clock.monotonic() - began
        self._not_before[place] = began + took * _REST_RATIO * len(self._not_before.keys() | {place})

    def _of(self, place: CheckpointPlace) -> list[str]:
        return [self._rules, place.table_uuid, place.scope]

    def _path(self, place: CheckpointPlace) -> Path:
        name = f"{quote(place.table, safe='')}.{place.key.log_id}.{place.key.partition}.gaps"
        return self._directory / name


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def encoded(of: list[str], checkpoint: Checkpoint) -> bytes:
    """Return the text of a checkpoint, with what it is of."""
    memory = checkpoint.memory
    values = {
        "of": of,
        "next_offset": checkpoint.next_offset,
        "commit_sequence": checkpoint.commit_sequence,
        "memory": [memory.clock_us, memory.kept, memory.offset, memory.marker],
        "streams": {
            name: [[getattr(state, field) for field in _FIELDS], state.holes] for name, state in memory.streams.items()
        },
    }
    return json.dumps(values, separators=(",", ":")).encode()


def decoded(of: list[str], text: bytes) -> Checkpoint | None:
    """Return the checkpoint of a text, None where it is of something else."""
    found = json.loads(text)
    if found["of"] != of:
        return None
    streams = {name: _state(values, holes) for name, (values, holes) in found["streams"].items()}
    holed = frozenset(name for name, state in streams.items() if waits(state))
    clock_us, kept, offset, marker = _numbers(found["memory"])
    memory = Memory(streams, holed, clock_us, kept, offset, marker)
    return Checkpoint(memory, *_numbers([found["next_offset"], found["commit_sequence"]]))


def _state(values: list[int], holes: list[list[int]]) -> StreamState:
    state = StreamState.__new__(StreamState)
    for name, value in zip(_FIELDS, _numbers(values), strict=True):
        setattr(state, name, value)
    state.holes = tuple(Hole._make((*_numbers(hole[:-1]), HoleStage(hole[-1]))) for hole in holes)
    return state


def _numbers(values: list[int]) -> list[int]:
    """Return the values; TypeError if one of them is no whole number."""
    if not all(type(value) is int for value in values):
        raise TypeError(f"expected whole numbers, found {values!r:.200}")
    return values
