"""A bounded queue of messages on disk: what a feed that cannot be paused hands over before the log has taken it.

A block is in the spool once `append` returns: it survives the end of the process, and a loss of power as far as the
policy of syncing goes. What was acknowledged is noted, and its segments are deleted. Where the process ended between
the log's answer and the note, the note's offsets say from where on the log is to be asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from k2.common.errors import ConfigurationError, CorruptionError, OverloadedError
from k2.common.logging import get_logger
from k2.feeds.spool_files import Block, encode, read_block, segment_path, segments, sync_directory, whole_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from k2.common.clock import Clock
    from k2.feeds.settings import SpoolSettings

log = get_logger(__name__)

LOCK_NAME: Final = "spool.lock"
NOTE_NAME: Final = "acknowledged.json"


class Position(NamedTuple):
    """A place in the spool: a segment's number and an offset in it."""

    segment: int
    offset: int


@dataclass(frozen=True)
class Note:
    """All before `position` is acknowledged; of the rest, the log holds nothing below the ends of its partitions."""

    position: Position
    ends: Mapping[tuple[str, int], int] = field(default_factory=dict)


class Spool:
    """One directory; one process has it at a time. One thread appends, one reads and acknowledges."""

    def __init__(self, directory: Path, settings: SpoolSettings, clock: Clock) -> None:
        """Open a spool, or make one; of a block that the last process did not finish nothing is kept.

        Raises:
            ConfigurationError: another process has it, or the directory cannot be written.
            CorruptionError: a segment before the last one is damaged; its path is named.
        """
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._changed = threading.Condition()
        self._lock = _locked(directory)
        self._files: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        """Bytes of each segment."""
        self.refused = 0
        """Messages that were not taken since the spool was full."""
        self._messages = 0
        try:
            self._open_segments()
            self.note = self._read_note()
            self._forget_before(self.note.position)
            self._read_at = self._first = max(self.note.position, Position(min(self._ends, default=0), 0))
            self._messages = sum(len(block) for block, _ in self._blocks_from(self._first))
            self._begin_segment()
        except BaseException:
            self._close_files()
            raise
        self._synced_at = clock.monotonic()

    @property
    def messages(self) -> int:
        """Messages that are not acknowledged."""
        return self._messages

    @property
    def bytes_held(self) -> int:
        """Bytes of all segments."""
        return sum(self._ends.values())

    def append(self, block: Block) -> None:
        """Put a block at the end.

        Raises:
            OverloadedError: it would be fuller than allowed, or the disk is full; nothing of the block is taken.
        """
        if not len(block):
            return
        content = encode(block)
        with self._changed:
            if self.bytes_held + len(content) > self._settings.bytes_max:
                raise self._refusal(block, f"{self.bytes_held:,} of {self._settings.bytes_max:,} bytes are used")
            number = max(self._ends)
            if self._ends[number] and self._ends[number] + len(content) > self._settings.segment_bytes:
                self._sync(number)
                number = self._begin_segment()
            self._write(number, content, block)
            self._ends[number] += len(content)
            self._messages += len(block)
            self._changed.notify_all()

    def read(self, timeout_seconds: float) -> tuple[Block, Position] | None:
        """Return the next block and the position after it; None if none comes in time."""
        with self._changed:
            self._changed.wait_for(self._has_more, timeout_seconds)
            found = next(self._blocks_from(self._read_at), None)
            if found is not None:
                self._read_at = found[1]
            return found

    def has_more(self) -> bool:
        """Say whether a block was not read yet."""
        with self._changed:
            return self._has_more()

    def rewind(self) -> None:
        """Read again from the first block that is not acknowledged."""
        with self._changed:
            self._read_at = self._first

    def acknowledge(self, position: Position, messages: int, ends: Mapping[tuple[str, int], int]) -> None:
        """Note that `messages`, all that lie before `position`, are in the log, up to `ends` of its partitions."""
        with self._changed:
            note = Note(position, dict(ends))
            self._write_note(note)
            self.note, self._first = note, position
            self._messages -= messages
            self._forget_before(position)

    def sync(self) -> None:
        """See that all that was taken survives a loss of power, unless it is never to be."""
        with self._changed:
            self._sync(max(self._ends))

    def close(self) -> None:
        """Let go of the directory; what it holds stays."""
        with self._changed:
            self._sync(max(self._ends))
            self._close_files()

    def _write(self, number: int, content: bytes, block: Block) -> None:
        file, at = self._files[number], self._ends[number]
        try:
            view = memoryview(content)
            while view:
                written = os.pwrite(file, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            os.ftruncate(file, self._ends[number])
            raise self._refusal(block, f"{self._directory} cannot be written: {error.strerror}") from error
        policy, now = self._settings.fsync, self._clock.monotonic()
        if policy == "always" or (policy == "interval" and now - self._synced_at >= self._settings.fsync_seconds):
            self._sync(number)
            self._synced_at = now

    def _refusal(self, block: Block, reason: str) -> OverloadedError:
        self.refused += len(block)
        log.error("spool_full", directory=str(self._directory), refused=self.refused, reason=reason)
        return OverloadedError(
            f"expected room in the spool {self._directory} for {len(block):,} messages, found none: {reason}; "
            f"{self.refused:,} messages were refused. Is the broker up (`k2 status`)? K2_FEEDS__SPOOL__BYTES_MAX "
            "is the limit",
            dependency="spool",
        )

    def _sync(self, number: int) -> None:
        if self._settings.fsync != "never":
            os.fsync(self._files[number])

    def _has_more(self) -> bool:
        segment, offset = self._read_at
        return any(
            size > (offset if number == segment else 0) for number, size in self._ends.items() if number >= segment
        )

    def _blocks_from(self, position: Position) -> Iterator[tuple[Block, Position]]:
        for number in sorted(self._ends):
            offset = position.offset if number == position.segment else 0
            while number >= position.segment and offset < self._ends[number]:
                found = read_block(self._files[number], offset, self._ends[number])
                if found is None:
                    raise self._damaged(number, offset)
                block, offset = found
                yield block, Position(number, offset)

    def _damaged(self, number: int, offset: int) -> CorruptionError:
        path = segment_path(self._directory, number)
        return CorruptionError(
            f"expected a block at offset {offset} of {path}, found other bytes: keep the file for a person to look at, "
            "and move it out of the spool to go on without what it holds",
            path=str(path),
        )

    def _open_segments(self) -> None:
        found = list(segments(self._directory))
        for number, path in found:
            whole, size = whole_bytes(path), path.stat().st_size
            if whole < size and (number, path) != found[-1]:
                raise self._damaged(number, whole)
            self._files[number] = os.open(path, os.O_RDWR)
            self._ends[number] = whole
            if whole < size:  # its sender was never told that it was taken
                log.warning("spool_tail_cut", path=str(path), bytes=size - whole)
                os.ftruncate(self._files[number], whole)

    def _begin_segment(self) -> int:
        number = max([*self._ends, self.note.position.segment], default=0) + 1
        path = segment_path(self._directory, number)
        self._files[number] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._ends[number] = 0
        if self._settings.fsync != "never":
            sync_directory(self._directory)
        return number

    def _forget_before(self, position: Position) -> None:
        for number in [each for each in self._ends if each < position.segment]:
            os.close(self._files.pop(number))
            del self._ends[number]
            segment_path(self._directory, number).unlink(missing_ok=True)

    def _read_note(self) -> Note:
        path = self._directory / NOTE_NAME
        try:
            body = json.loads(path.read_bytes())
            ends = {(topic, partition): end for topic, partition, end in body["ends"]}
            return Note(Position(*body["position"]), ends)
        except FileNotFoundError:
            return Note(Position(0, 0))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptionError(
                f"expected what was acknowledged of the spool in {path}, found something else ({error}): delete the "
                "file to have all of the spool sent again; ingestion drops what is doubled",
                path=str(path),
            ) from error

    def _write_note(self, note: Note) -> None:
        body = {"position": list(note.position), "ends": [[*at, end] for at, end in sorted(note.ends.items())]}
        path = self._directory / NOTE_NAME
        draft = path.with_suffix(".tmp")
        with draft.open("wb") as stream:
            stream.write(json.dumps(body).encode())
            if self._settings.fsync == "always":
                stream.flush()
                os.fsync(stream.fileno())
        draft.replace(path)

    def _close_files(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):
                os.close(file)
        self._files.clear()
        os.close(self._lock)


def _locked(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot write the spool {directory}: {error.strerror}; check permissions") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise ConfigurationError(
            f"expected the spool {directory} to be nobody's, found it in use by another process: give each feed its own"
        ) from None
    return file
