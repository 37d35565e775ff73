"""Notes in a small file what is about to be decoded, so that the next process knows what the last one died of.

What ends a process does not end the machine: what was written to a file is there for the next process without being
synced, so a note costs microseconds. Without the file nothing is lost but the memory of deaths.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from k2.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = get_logger(__name__)

_SIZE_BYTES: Final = 64 * 1024
_SUSPECTS_MAX: Final = 16
_QUARANTINED_MAX: Final = 256
_SLOTS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages of one partition at the offsets [start, end), and how many processes died while decoding there."""

    topic: str
    log_id: int
    partition: int
    start: int
    end: int
    deaths: int = 0

    def overlaps(self, other: Stretch) -> bool:
        """Say whether both have an offset in common."""
        return self.is_beside(other) and self.start < other.end and other.start < self.end

    def is_beside(self, other: Stretch) -> bool:
        """Say whether both are of one partition."""
        return (self.topic, self.log_id, self.partition) == (other.topic, other.log_id, other.partition)


class DecodeJournal:
    """What this worker decodes, and where its predecessors died; used by one thread."""

    def __init__(self, path: Path | None, *, kills_max: int, descriptor: int | None = None) -> None:
        """Read what the last process left in the file; None keeps everything in memory, for this process only."""
        self._path = path
        self._kills_max = kills_max
        self._file = descriptor
        self.suspects: tuple[Stretch, ...] = ()
        self.quarantined: tuple[Stretch, ...] = ()
        """Single messages that must not be decoded."""
        decoding = self._read()
        if decoding is not None:
            self._blame(decoding)
            self._write(None)

    @classmethod
    def open(cls, directory: Path, group_id: str, member_id: str | None, *, kills_max: int) -> DecodeJournal:
        """Open the file of this member of the group; a member without a name takes the first that no process has."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for number in range(_SLOTS_MAX):
                name = f"{group_id}.{member_id or number}"
                path = directory / f"{quote(name, safe='')}.decoding"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                if member_id is not None or _locked(descriptor):
                    os.posix_fallocate(descriptor, 0, _SIZE_BYTES)  # a note must not fail on a full disk
                    return cls(path, kills_max=kills_max, descriptor=descriptor)
                os.close(descriptor)
        except OSError as error:
            log.warning("decode_journal_unavailable", directory=str(directory), reason=str(error))
        return cls(None, kills_max=kills_max)

    def begins(self, stretch: Stretch) -> None:
        """Note that these messages are decoded now."""
        self._write(stretch)

    def ended(self, stretch: Stretch) -> None:
        """Note that they were decoded, well or badly: whatever killed a process there does so no more."""
        if self.suspects:
            self.suspects = tuple(
                replace(one, start=max(one.start, stretch.end)) if one.overlaps(stretch) else one
                for one in self.suspects
                if not (one.overlaps(stretch) and one.end <= stretch.end)
            )
        self._write(None)

    def interrupted(self) -> None:
        """Note that decoding raised an error, which is no death and clears nobody of suspicion."""
        self._write(None)

    def close(self) -> None:
        """Forget what is being decoded: a process that ends in order is no death."""
        self._write(None)
        descriptor, self._file = self._file, None
        if descriptor is not None:
            os.close(descriptor)

    def _blame(self, decoding: Stretch) -> None:
        guilty = replace(decoding, deaths=decoding.deaths + 1)
        others = [one for one in self.suspects if not one.overlaps(guilty)]
        log.error("process_died_decoding", **_fields(guilty))
        if guilty.deaths >= self._kills_max and guilty.end - guilty.start == 1:
            self.quarantined = (*self.quarantined, guilty)[-_QUARANTINED_MAX:]
            # The messages behind it were never reached: they are as suspect as they were.
            others += [one for one in self.suspects if one.overlaps(guilty) and one.end > guilty.end]
            log.error("message_quarantined", **_fields(guilty))
        else:
            others.append(guilty)
        self.suspects = tuple(others[-_SUSPECTS_MAX:])

    def _read(self) -> Stretch | None:
        if self._file is None:
            return None
        try:
            text = os.pread(self._file, _SIZE_BYTES, 0).partition(b"\n")[0]
            body = json.loads(text) if text.strip(b"\0") else {}
            self.suspects = _stretches(body.get("suspects", ()))
            self.quarantined = _stretches(body.get("quarantined", ()))
            (decoding,) = _stretches([body["decoding"]]) if body.get("decoding") else (None,)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            log.warning("decode_journal_unreadable", path=str(self._path), reason=str(error))
            self.suspects = self.quarantined = ()
            return None
        return decoding

    def _write(self, decoding: Stretch | None) -> None:
        if self._file is None:
            return
        body = {
            "decoding": None if decoding is None else astuple(decoding),
            "suspects": [astuple(one) for one in self.suspects],
            "quarantined": [astuple(one) for one in self.quarantined],
        }
        try:
            os.pwrite(self._file, json.dumps(body, separators=(",", ":")).encode() + b"\n", 0)
        except OSError as error:
            log.warning("decode_journal_unavailable", path=str(self._path), reason=str(error))
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None


def _locked(descriptor: int) -> bool:
    """Take the file for this process, as long as it lives; False if another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stretches(values: Sequence[Sequence[object]]) -> tuple[Stretch, ...]:
    for topic, *numbers in values:
        if not isinstance(topic, str) or not all(type(number) is int for number in numbers):
            raise TypeError(f"expected a topic and whole numbers, found {[topic, *numbers]!r:.200}")
    return tuple(Stretch(*value) for value in values)  # type: ignore[arg-type]  # it was just looked at


def _fields(stretch: Stretch) -> dict[str, object]:
    return {name: getattr(stretch, name) for name in stretch.__dataclass_fields__}
