"""Streams as a client sees them: events out of bytes, where to go on, and which failures end it; does no I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal

from k2.client.errors import ApiUnavailableError, RefusedQuestionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from k2.client.errors import RefusedKeyError

    ClientError = ApiUnavailableError | RefusedKeyError | RefusedQuestionError

OnSlow = Literal["wait", "drop", "disconnect"]
PATH: Final = "/v1/stream"
HEADERS: Final = {"Accept": "text/event-stream"}
_END_OF_EVENT: Final = b"\n\n"
_SLOW: Final = "slow_reader"
_BUSY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: `rows`, `bar`, `left_out` or `heartbeat`, and its JSON as Python values; decimals are texts.

    A stream that is asked for with `cursor` goes on behind this event.
    """

    kind: str
    body: Any
    cursor: str | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the records of an event of the kind `rows`; none of another."""
        return self.body if self.kind == "rows" else []

    @property
    def bars(self) -> list[dict[str, Any]]:
        """Return the bars of an event of the kind `bar`; none of another."""
        return self.body if self.kind == "bar" else []


class EventParser:
    """Makes events of the bytes of text/event-stream, however they are cut."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._seen = 0

    def feed(self, part: bytes) -> Iterator[StreamEvent]:
        """Give the events that are whole by now."""
        self._held += part
        while (end := self._held.find(_END_OF_EVENT, self._seen)) >= 0:
            text = self._held[:end].decode()
            del self._held[: end + len(_END_OF_EVENT)]
            self._seen = 0
            yield _event(text)
        self._seen = max(0, len(self._held) - 1)


@dataclass(slots=True)
class StreamPlan:
    """What is asked for, where the client stands, and how often it has tried in vain."""

    symbols: Sequence[str]
    table: str
    exchange: str | None
    start: str | int
    cursor: str | None
    bars: str | None
    follow: bool
    on_slow: OnSlow
    attempts_max: int
    pause_seconds_max: float
    is_over: bool = False
    failures: int = field(default=0, init=False)
    _trouble: ApiUnavailableError | None = field(default=None, init=False)

    def parameters(self) -> list[tuple[str, str | int | float | bool | None]]:
        """Return the parameters of the next request."""
        given = {
            "table": self.table,
            "exchange": self.exchange,
            "from": None if self.cursor is not None else str(self.start),
            "cursor": self.cursor,
            "bars": self.bars,
            "follow": str(self.follow).lower(),
            "on_slow": self.on_slow,
        }
        return [
            *(("symbol", symbol) for symbol in self.symbols),
            *((name, value) for name, value in given.items() if value is not None),
        ]

    def take(self, event: StreamEvent) -> StreamEvent | None:
        """Note where the client stands; return what is for the caller.

        Raises:
            ApiUnavailableError, RefusedQuestionError: the stream cannot go on.
        """
        self.cursor = event.cursor or self.cursor
        if event.kind == "error":
            self._trouble = _passing(event.body)
            return None
        self.failures, self._trouble = 0, None
        if event.kind == "end":
            self.is_over = event.body["reason"] == "all_sent"
            return None
        return event

    def pause_seconds(self, error: ClientError | None = None) -> float:
        """Return the pause before the next attempt, after a connection that ended or a refusal.

        Raises:
            the error, where it is not one that a later attempt may not meet, or there were too many.
        """
        self.failures += 1
        error = error or self._trouble or ApiUnavailableError("the stream was cut again and again")
        if self.failures >= self.attempts_max or not _is_passing(error):
            raise error
        pause = error.retry_after_seconds if isinstance(error, ApiUnavailableError) else 1.0
        return min(pause, self.pause_seconds_max)


def _passing(body: dict[str, Any]) -> ApiUnavailableError:
    """Return what an `error` says, if another connection may get over it; raise it if not."""
    status, text = body["status"], f"{body['detail']} (status {body['status']})"
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        raise RefusedQuestionError(text, status=status, request_id=None)
    error = ApiUnavailableError(text, status=status)
    if body.get("reason") == _SLOW:
        raise error
    return error


def _is_passing(error: Exception) -> bool:
    return isinstance(error, ApiUnavailableError) and (error.status is None or error.status in _BUSY)


def _event(text: str) -> StreamEvent:
    fields = dict(line.split(": ", 1) for line in text.split("\n") if ": " in line)
    return StreamEvent(fields.get("event", ""), json.loads(fields.get("data", "null")), fields.get("id"))
