"""What keeps the API from answering every question in full, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.query.kafka_tail import KafkaTail


def reasons_not_ready(tail: KafkaTail) -> list[str]:
    """Return why questions cannot be answered in full now; nothing once the tail follows every topic that has rows."""
    troubles = [str(error) for error in (tail.watch_trouble, tail.trouble) if error is not None]
    if not tail.state.heads and not troubles:
        return ["the tail has not seen the tables and the topics yet"]
    return troubles + [refused.reason for refused in tail.state.refused.values() if not refused.unregistered]
