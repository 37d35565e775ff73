"""The events of a stream, as the lines of text/event-stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

MEDIA_TYPE: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `cursor` is where a stream goes on that has got it; None where it says nothing of that."""

    name: str
    data: bytes
    cursor: str | None = None
    rows: int = 0

    def encoded(self) -> bytes:
        """Return the event's lines; its data is JSON, which has no line break."""
        at = b"" if self.cursor is None else b"id: " + self.cursor.encode() + b"\n"
        return b"event: " + self.name.encode() + b"\n" + at + b"data: " + self.data + b"\n\n"


def json_event(name: str, body: Any, cursor: str | None = None) -> Event:  # Any: whatever JSON holds
    """Return an event whose data is this value."""
    return Event(name, json.dumps(body, separators=(",", ":")).encode(), cursor)
