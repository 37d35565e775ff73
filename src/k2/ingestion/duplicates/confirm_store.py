"""The confirm store, where what the Bloom filter suspects is looked up: fingerprints in Valkey or Redis, in buckets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from uuid import uuid4

from valkey.exceptions import ValkeyError

from k2.common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_BUCKET_IDS: Final = 64
"""Ids of a full bucket, about: few enough for the server's compact encoding, enough to share the key's overhead."""
_FIELD_BYTES: Final = 8
_TIME_BYTES: Final = 3
_COMMANDS_AT_ONCE: Final = 10_000
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
        """Store fingerprints, grouped by bucket."""
        at = self._packed(generation, log_time_ms)
        mask, bits, rest_bytes = self._mask, self._bits, self._rest_bytes
        buckets: dict[int, list[bytes]] = {}
        for fingerprint, offset in offsets.items():
            words = buckets.setdefault(fingerprint & mask, [])
            words.append((fingerprint >> bits).to_bytes(rest_bytes, "little"))
            words.append(at if offset is None else at + _packed_offset(offset))
        commands = [("HSET", self._key(generation, bucket), *words) for bucket, words in buckets.items()]
        for part in _parts(commands, _COMMANDS_AT_ONCE):
            self._pipeline([("SADD", f"{self._namespace}:generations", generation), *part])
        writes = self._do(lambda: self._client.hincrby(self._mark, "writes", 1))
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


def _packed_offset(offset: int) -> bytes:
    """Return one more than the offset, in as few bytes as it needs: offset 0 has a byte too."""
    return (offset + 1).to_bytes(8, "little").rstrip(b"\0")


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(f"the confirm store does not answer: {error}", dependency=_DEPENDENCY)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
