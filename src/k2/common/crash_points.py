"""Named points at which a test can end the process, as a power cut would.

A point costs one dictionary look-up while none is armed. `K2_CRASH_POINTS="before_commit:3"` (read by
`k2.settings`) ends the process with `os._exit(137)` the third time that the point is reached. A point that looks at
messages ends it at those that hold given bytes, in hexadecimal: `K2_CRASH_POINTS="decoding=00ff"`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_CODE: Final = 137

INGEST_NAMES: Final = frozenset(
    {
        "after_poll",
        "after_decode",
        "mid_parquet",
        "file_closed",
        "before_commit",
        "metadata_written",
        "after_commit",
        "after_side_tables",
        "during_revoke",
    }
)
"""Points that each batch on its way into a table passes."""
BACKFILL_NAMES: Final = frozenset({"backfill_read", "backfill_recorded", "before_backfill", "after_backfill"})
"""Points that a deferred range passes: read and decoded, side tables written, before and after its commit."""
UPKEEP_NAMES: Final = frozenset({"before_replace", "after_replace", "orphans_marked", "mid_sweep"})
NAMES: Final = INGEST_NAMES | BACKFILL_NAMES | UPKEEP_NAMES

MESSAGE_NAMES: Final = frozenset({"decoding"})

_armed: dict[str, int] = {}
_armed_by_bytes: dict[str, bytes] = {}


def arm(name: str, *, hits: int = 1) -> None:
    """End the process at the `hits`-th time that the point `name` is reached."""
    if name not in NAMES:
        raise ValueError(f"unknown crash point {name!r}; known: {', '.join(sorted(NAMES))}")
    if hits < 1:
        raise ValueError(f"hits must be 1 or more, found {hits}")
    _armed[name] = hits


def arm_at(name: str, content: bytes) -> None:
    """End the process whenever a message that holds `content` comes to the point `name`."""
    if name not in MESSAGE_NAMES or not content:
        raise ValueError(f"expected {', '.join(sorted(MESSAGE_NAMES))} and some bytes, found {name!r} and {content!r}")
    _armed_by_bytes[name] = content


def arm_from(text: str) -> None:
    """Arm the points of a list such as `before_commit:3,after_poll,decoding=00ff`; an empty text arms none."""
    for item in filter(None, (part.strip() for part in text.split(","))):
        if "=" in item:
            name, _, content = item.partition("=")
            arm_at(name, bytes.fromhex(content))
            continue
        name, _, hits = item.partition(":")
        arm(name, hits=int(hits or 1))


def reached(name: str) -> None:
    """Mark that the process is at the point `name`; ends the process if the point is armed and due."""
    left = _armed.get(name)
    if left is None:
        return
    if left == 1:
        os._exit(EXIT_CODE)
    _armed[name] = left - 1


def reached_with(name: str, messages: Iterable[bytes | None]) -> None:
    """Mark that messages are at the point `name`; ends the process if it is armed for the bytes of one of them."""
    content = _armed_by_bytes.get(name)
    if content is not None and any(message is not None and content in message for message in messages):
        os._exit(EXIT_CODE)
