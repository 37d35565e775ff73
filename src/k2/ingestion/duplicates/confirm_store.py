"""The confirm store, where what the Bloom filter suspects is looked up: fingerprints in Valkey or Redis, in buckets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from uuid import uuid4

import numpy as np
from valkey.exceptions import ValkeyError

from k2.common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_BUCKET_IDS: Final = 64
"""Ids of a full bucket, about: few enough for the server's compact encoding, enough to share the key's overhead."""
_FIELD_BYTES: Final = 8
_TIME_BYTES: Final = 3
_COMMANDS_AT_ONCE: Final = 10_000
_IDS_AT_ONCE: Final = 5_000
"""Stored in one step, which keeps other clients waiting for some milliseconds."""
_FIRST_OF_LENGTH: Final = np.array([1 << 8 * size for size in range(8)], np.uint64)
"""The lowest numbers that need one byte, two bytes, ..."""
_SCRIPT: Final = Path(__file__).with_suffix(".lua")
_KEYS_AT_ONCE: Final = 1_000
_DEPENDENCY: Final = "valkey"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where and when a fingerprint was first accepted; the offset is None where it was given without one."""

    log_time_ms: int
    offset: int | None


class ConfirmStore(Protocol):
    """Remembers fingerprints by generation. Every method may raise UnavailableError."""

    def attach(self) -> bool:
        """Mark the store as it is; False if it had no mark, or not the one that this process knows."""
        ...

    def is_attached(self) -> bool:
        """Say whether the store holds all that was written: one that was flushed, or is an older copy, does not."""
        ...

    def remember(self, generation: int, log_time_ms: int, offsets: Mapping[int, int | None]) -> None:
        """Store fingerprints of one generation, each with the offset that it was accepted at, if there is one."""
        ...

    def recall(self, generations: Sequence[int], fingerprints: Sequence[int]) -> list[Sighting | None]:
        """Return the newest sighting of each fingerprint, None where there is none."""
        ...

    def generations(self) -> tuple[int, ...]:
        """Return the generations that were stored, oldest first."""
        ...

    def fingerprints(self, generation: int) -> Iterator[list[int]]:
        """Iterate over all fingerprints of a generation, some at a time."""
        ...

    def forget(self, generation: int) -> None:
        """Delete a generation."""
        ...

    def clear(self) -> None:
        """Delete everything."""
        ...


class RedisConfirmStore:
    """Fingerprints in small hashes: the bucket's number is a part of the fingerprint, the field is the rest of it.

    A value holds the time within the generation in three bytes (2 ms steps in six hours, rounded up, so that a window
    never ends early), and the offset in as few bytes as it needs. The mark is a token, which a flush takes away, and a
    count of what was written, which an older copy has not reached.
    """

    def __init__(self, client: Any, *, namespace: str, ids_per_generation: int, length_ms: int) -> None:
        # Any: a client of Valkey or of Redis; both have these commands
        self._client = client
        self._script: Callable[..., Any] = client.register_script(_SCRIPT.read_text("utf-8"))
        self._namespace = namespace
        self._bits = round(math.log2(max(1, ids_per_generation / _BUCKET_IDS)))
        self._length_ms = length_ms
        self._step_ms = length_ms // ((1 << 8 * _TIME_BYTES) - 1) + 1
        self._rest_bytes = _FIELD_BYTES - self._bits // 8
        self._mark = f"{namespace}:mark"
        self._token: bytes | None = None
        self._writes = 0

    def attach(self) -> bool:
        """Set the mark where there is none, and take it as it is."""
        known, writes = self._token, self._writes
        commands = [("HSETNX", self._mark, "token", uuid4().hex), ("HMGET", self._mark, "token", "writes")]
        is_new, (self._token, found) = self._pipeline(commands)
        self._writes = int(found or 0)
        return not is_new and (known is None or (self._token == known and self._writes >= writes))

    def is_attached(self) -> bool:
        """Look at the mark."""
        token, writes = self._do(lambda: self._client.hmget(self._mark, "token", "writes"))
        return token is not None and token == self._token and int(writes or 0) >= self._writes

    def remember(self, generation: int, log_time_ms: int, offsets: Mapping[int, int | None]) -> None:
        """Store fingerprints, some thousands in one step; as commands they would cost the client ten times as much."""
        keys = [f"{self._namespace}:generations", self._mark]
        entries = self._entries(self._packed(generation, log_time_ms), offsets)
        for part in _parts(entries, _IDS_AT_ONCE):
            arguments = [f"{self._namespace}:{generation:x}", generation, self._rest_bytes, part.tobytes()]
            writes = self._do(lambda arguments=arguments: self._script(keys=keys, args=arguments))  # type: ignore[misc]  # bound at once
            if writes <= self._writes:
                self._token = b""  # the store went back: not attached until it is marked anew
            self._writes = writes

    def recall(self, generations: Sequence[int], fingerprints: Sequence[int]) -> list[Sighting | None]:
        """Ask each generation, newest first."""
        found: list[Sighting | None] = [None] * len(fingerprints)
        for generation in sorted(generations, reverse=True):
            open_places = [place for place, sighting in enumerate(found) if sighting is None]
            for places in _parts(open_places, _COMMANDS_AT_ONCE):
                values = self._pipeline([("HGET", *self._place(generation, fingerprints[place])) for place in places])
                for place, value in zip(places, values, strict=True):
                    found[place] = None if value is None else self._unpacked(generation, value)
        return found

    def generations(self) -> tuple[int, ...]:
        """Return the generations that were stored."""
        members: set[bytes] = self._do(lambda: self._client.smembers(f"{self._namespace}:generations"))
        return tuple(sorted(int(member) for member in members))

    def fingerprints(self, generation: int) -> Iterator[list[int]]:
        """Read a generation bucket by bucket."""
        for buckets in _parts(range(self._mask + 1), _KEYS_AT_ONCE):
            fields = self._pipeline([("HKEYS", self._key(generation, bucket)) for bucket in buckets])
            yield [
                int.from_bytes(field, "little") << self._bits | bucket
                for bucket, names in zip(buckets, fields, strict=True)
                for field in names
            ]

    def forget(self, generation: int) -> None:
        """Delete a generation's buckets."""
        for buckets in _parts(range(self._mask + 1), _KEYS_AT_ONCE):
            keys = [self._key(generation, bucket) for bucket in buckets]
            self._do(lambda keys=keys: self._client.unlink(*keys))  # type: ignore[misc]  # bound at once
        self._do(lambda: self._client.srem(f"{self._namespace}:generations", generation))

    def clear(self) -> None:
        """Delete every generation and the mark."""
        for generation in self.generations():
            self.forget(generation)
        self._do(lambda: self._client.unlink(f"{self._namespace}:generations", self._mark))

    @property
    def _mask(self) -> int:
        return (1 << self._bits) - 1

    def _key(self, generation: int, bucket: int) -> bytes:
        return f"{self._namespace}:{generation:x}:{bucket:x}".encode()

    def _place(self, generation: int, fingerprint: int) -> tuple[bytes, bytes]:
        rest = (fingerprint >> self._bits).to_bytes(self._rest_bytes, "little")
        return self._key(generation, fingerprint & self._mask), rest

    def _entries(self, at: bytes, offsets: Mapping[int, int | None]) -> NDArray[np.uint8]:
        """Return one row of bytes an id, as the script reads them, those of a bucket together."""
        prints = np.fromiter(offsets, np.uint64, len(offsets))
        order = np.argsort(prints & np.uint64(self._mask), kind="stable")
        prints = prints[order]
        # One more than the offset, in as few bytes as it needs: offset 0 has a byte too, and none has no byte.
        places = np.fromiter((0 if each is None else each + 1 for each in offsets.values()), np.uint64, len(offsets))
        places = places[order]
        lengths = np.searchsorted(_FIRST_OF_LENGTH, places, side="right") + _TIME_BYTES
        columns = (
            _bytes_of((prints & np.uint64(self._mask)).astype("<u4")),
            _bytes_of((prints >> np.uint64(self._bits)).astype("<u8"))[:, : self._rest_bytes],
            lengths.astype(np.uint8)[:, None],
            np.broadcast_to(np.frombuffer(at, np.uint8), (len(prints), _TIME_BYTES)),
            _bytes_of(places.astype("<u8")),
        )
        return np.concatenate(columns, axis=1)

    def _packed(self, generation: int, log_time_ms: int) -> bytes:
        steps = -(-(log_time_ms - generation * self._length_ms) // self._step_ms)
        return max(0, steps).to_bytes(_TIME_BYTES, "little")

    def _unpacked(self, generation: int, value: bytes) -> Sighting:
        steps, offset = int.from_bytes(value[:_TIME_BYTES], "little"), value[_TIME_BYTES:]
        at = generation * self._length_ms + steps * self._step_ms
        return Sighting(at, int.from_bytes(offset, "little") - 1 if offset else None)

    def _pipeline(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        def run() -> list[Any]:
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute())

        return self._do(run)

    def _do(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (ValkeyError, OSError) as error:
            raise _unavailable(error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "redis":  # the other client, which may not be installed
                raise _unavailable(error) from error
            raise


def _bytes_of(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    return numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize)


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"the confirm store does not answer: {error}", dependency=_DEPENDENCY)


def _parts(items: Any, size: int) -> Iterator[Any]:  # Any: a sequence or an array
    for start in range(0, len(items), size):
        yield items[start : start + size]
