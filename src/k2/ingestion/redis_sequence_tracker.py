"""The tracker whose memory is in Redis or Valkey, shared by processes; without it, this process's memory carries on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from valkey.exceptions import ValkeyError

from k2.common.logging import get_logger
from k2.ingestion.sequences.rules import Decision, Hole, Message, SequenceKind, SequenceRules, StreamState
from k2.ingestion.sequences.tracker import (
    DEFAULT_STREAMS_MAX,
    MemorySequenceTracker,
    SequenceCheck,
    SequenceCounts,
    SequenceEvent,
    SequenceStats,
    SequenceTracker,
    StreamKey,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from valkey import Valkey

    from k2.common.clock import Clock

log = get_logger(__name__)

TTL_SECONDS: Final = 7 * 86_400
_SCRIPT: Final = Path(__file__).with_suffix(".lua")
_BILLION: Final = 10**9
_KINDS: Final = {
    "n": SequenceKind.NORMAL,
    "N": SequenceKind.NORMAL,
    "r": SequenceKind.NORMAL,
    "G": SequenceKind.GAP,
    "O": SequenceKind.OUT_OF_ORDER,
    "D": SequenceKind.DUPLICATE,
    "R": SequenceKind.RESET,
}
_KEYS_A_SCAN: Final = 1_000


class RedisSequenceTracker(SequenceTracker):
    """Keeps one key a stream, `k2:seq:{exchange}:{symbol}:{data type}:{channel or session}`.

    A batch is one script, and so one atomic step; a batch longer than `checks_max` is several. The client brings its
    own timeouts. A key that is absent (expired, flushed) is looked up in this process's memory, then by `load`; of one
    that is older than the memory (a server that came back with an old copy) the memory is taken. While the server does
    not answer, the memory decides, and is written back once it does.
    The numbers of one stream must lie within 2^53 of each other.
    """

    def __init__(
        self,
        redis_client: Valkey,
        rules: SequenceRules | None = None,
        *,
        clock: Clock,
        load: Callable[[StreamKey], StreamState | None] | None = None,
        ttl_seconds: int = TTL_SECONDS,
        streams_max: int = DEFAULT_STREAMS_MAX,
        checks_max: int = 10_000,
        retry_seconds: float = 1.0,
    ) -> None:
        self._client = redis_client
        self._script: Callable[..., Any] = redis_client.register_script(_SCRIPT.read_text("utf-8"))
        self._rules = rules or SequenceRules()
        self._clock = clock
        self._load = load
        self._ttl_seconds = ttl_seconds
        self._streams_max = streams_max
        self._checks_max = checks_max
        self._retry_seconds = retry_seconds
        self._retry_at = 0.0
        self._known: dict[StreamKey, str] = {}
        """What the server last said of each stream, the newest last."""
        self._alone: MemorySequenceTracker | None = None
        """Decides while the server does not answer; holds the streams that it has moved."""
        self._counts = SequenceCounts()

    def check_sequence_batch(
        self, checks: Iterable[SequenceCheck | tuple[str, str, int, datetime | int]]
    ) -> list[SequenceEvent]:
        """Check messages in their order, as one step."""
        wanted = [SequenceCheck(*check) for check in checks]
        return [
            event
            for start in range(0, len(wanted), self._checks_max)
            for event in self._check(wanted[start : start + self._checks_max])
        ]

    def get_stats(self) -> SequenceStats:
        """Return what this tracker has counted; `streams` are those that it has met and remembers."""
        alone = self._alone.get_stats().streams if self._alone else 0
        return self._counts.stats(max(len(self._known), alone), degraded=self._alone is not None)

    def clear_symbol(self, exchange: str, symbol: str) -> None:
        """Forget a symbol's streams, here and on the server; ValkeyError if that does not answer."""
        for key in [key for key in self._known if (key.exchange, key.symbol) == (exchange, symbol)]:
            del self._known[key]
        if self._alone is not None:
            self._alone.clear_symbol(exchange, symbol)
        self._delete(f"k2:seq:{quote(exchange, safe='')}:{quote(symbol, safe='')}:*")

    def clear_all(self) -> None:
        """Forget every stream, here and on the server; ValkeyError if that does not answer."""
        self._known.clear()
        if self._alone is not None:
            self._alone.clear_all()
        self._delete("k2:seq:*")

    # One batch.

    def _check(self, checks: list[SequenceCheck]) -> list[SequenceEvent]:
        if not checks:
            return []
        if self._alone is None or self._clock.monotonic() >= self._retry_at:
            try:
                return self._check_shared(checks)
            except (ValkeyError, OSError) as error:
                self._carry_on_alone(error)
        return self._check_alone(checks)

    def _check_shared(self, checks: list[SequenceCheck]) -> list[SequenceEvent]:
        places: dict[StreamKey, int] = {}
        messages = []
        for check in checks:
            place = places.setdefault(check.stream, len(places) + 1)
            messages.append(_as_numbers(place, check.message))
        if self._alone is not None:
            self._write_back(self._alone)
            self._alone = None
        keys = list(places)
        seeds = [self._known.get(key, "" if self._load else "new") for key in keys]
        answer = self._call(keys, seeds, messages)
        if answer[0] == b"missing":
            for place in map(int, answer[1].split(b",")):
                seeds[place - 1] = self._loaded(keys[place - 1])
            answer = self._call(keys, seeds, messages)
        _, kinds, expected, states = answer
        for key, text in zip(keys, states, strict=True):
            self._keep(key, text.decode())
        return [
            self._counts.event(check, decision)
            for check, decision in zip(checks, _decisions(checks, kinds.decode(), expected.decode()), strict=True)
        ]

    def _call(self, keys: list[StreamKey], seeds: list[str], messages: list[list[int]]) -> list[Any]:
        request = {
            "rules": asdict(self._rules),
            "ttl_seconds": self._ttl_seconds,
            "seeds": seeds,
            "checks": messages,
        }
        answer: list[Any] = self._script(keys=[_name(key) for key in keys], args=[json.dumps(request)])
        return answer

    def _loaded(self, key: StreamKey) -> str:
        loaded = self._load(key) if self._load else None
        return "new" if loaded is None else as_text(loaded)

    def _keep(self, key: StreamKey, text: str) -> None:
        self._known.pop(key, None)
        self._known[key] = text
        if len(self._known) > self._streams_max:
            del self._known[next(iter(self._known))]

    # Without the server.

    def _carry_on_alone(self, error: Exception) -> None:
        self._retry_at = self._clock.monotonic() + self._retry_seconds
        if self._alone is None:
            log.warning(
                "sequence_state_unreachable", error=f"{type(error).__name__}: {error}", streams=len(self._known)
            )
            self._alone = MemorySequenceTracker(self._rules, load=self._recall, streams_max=self._streams_max)

    def _recall(self, key: StreamKey) -> StreamState | None:
        known = self._known.get(key)
        if known is not None:
            return from_text(known)
        return self._load(key) if self._load else None

    def _check_alone(self, checks: list[SequenceCheck]) -> list[SequenceEvent]:
        if self._alone is None:
            raise RuntimeError("the tracker is not alone: this is a mistake in it")
        events = self._alone.check_sequence_batch(checks)
        for check, event in zip(checks, events, strict=True):
            self._counts.event(check, Decision(event.kind, event.expected, event.replayed))
        return events

    def _write_back(self, alone: MemorySequenceTracker) -> None:
        """Write what was decided alone over what the server holds, which has seen nothing since, or lost all."""
        moved = [(key, as_text(state)) for key, state in alone.states()]
        for start in range(0, len(moved), self._checks_max):
            part = moved[start : start + self._checks_max]
            self._call([key for key, _ in part], [f"!{text}" for _, text in part], [])
        for key, text in moved:
            self._keep(key, text)
        log.warning("sequence_state_back", streams=len(moved))

    def _delete(self, pattern: str) -> None:
        names: list[bytes] = []
        for name in self._matching(pattern):
            names.append(name)
            if len(names) == _KEYS_A_SCAN:
                self._client.unlink(*names)
                names.clear()
        if names:
            self._client.unlink(*names)

    def _matching(self, pattern: str) -> Iterator[bytes]:
        found: Iterator[bytes] = self._client.scan_iter(match=pattern, count=_KEYS_A_SCAN)
        return found


def as_text(state: StreamState) -> str:
    """Return a state as the script keeps it."""
    base = state.first
    numbers = (
        *divmod(base, _BILLION), 0, state.last - base, state.sub_index, state.day, state.day_begin, state.time_us,
        state.partition, state.offset, state.numbering,
    )  # fmt: skip
    holes = (
        (hole.first - base, hole.last - base, hole.numbering, hole.from_day, hole.to_day, hole.time_us, hole.offset)
        for hole in state.holes
    )
    return ";".join(",".join(map(str, part)) for part in (numbers, *holes))


def from_text(text: str) -> StreamState:
    """Return the state that the script kept."""
    head, *holes = [[int(number) for number in part.split(",")] for part in text.split(";")]
    high, low, first, last, sub_index, day, day_begin, time_us, partition, offset, numbering = head
    base = high * _BILLION + low
    state = StreamState(Message(base + last, time_us, day, sub_index, partition, offset))
    state.first, state.day_begin, state.numbering = base + first, day_begin, numbering
    state.holes = tuple(
        Hole(base + begin, base + end, number, from_day, to_day, at_us, at_offset, 0, 0, 0)
        for begin, end, number, from_day, to_day, at_us, at_offset in holes
    )
    return state


def _as_numbers(place: int, message: Message) -> list[int]:
    return [
        place, *divmod(message.sequence, _BILLION), message.time_us, message.day, message.sub_index,
        message.partition, message.offset,
    ]  # fmt: skip


def _decisions(checks: list[SequenceCheck], kinds: str, expected: str) -> Iterator[Decision]:
    numbers = iter(expected.split(";"))
    for check, letter in zip(checks, kinds, strict=True):
        if letter == "b":
            yield Decision(SequenceKind.NORMAL, None)
        elif letter == "n":
            yield Decision(SequenceKind.NORMAL, check.sequence)
        else:
            high, low, number = map(int, next(numbers).split(","))
            yield Decision(_KINDS[letter], high * _BILLION + low + number, letter == "r")


def _name(key: StreamKey) -> str:
    return ":".join(("k2:seq", *(quote(part, safe="") for part in key)))
