"""What keeps the API from answering every question in full, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.query.kafka_tail import KafkaTail
    from k2.query.warm_start import WarmStart


def reasons_not_ready(tail: KafkaTail, warm_start: WarmStart | None = None) -> list[str]:
    """Return why questions cannot be answered in full and at once now.

    Nothing, once the tail follows every topic that has rows and a warm start is over.
    """
    troubles = [str(error) for error in (tail.watch_trouble, tail.trouble) if error is not None]
    if not tail.state.heads and not troubles:
        return ["the tail has not seen the tables and the topics yet"]
    if warm_start is not None and not warm_start.is_over and not troubles:
        return ["the process still asks its first questions itself, which take longer than others"]
    return troubles + [refused.reason for refused in tail.state.refused.values() if not refused.unregistered]
