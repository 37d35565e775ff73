"""Stands where the log would: for questions about the table alone, which never get this far."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from k2.common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from k2.kafka.batches import LogBatch


class NoLog:
    """Refuses whatever would need the log. Has the shape of `LogFacts` and `Decodes`."""

    def identities(self, topics: Iterable[str]) -> NoReturn:
        """Refuse."""
        raise _refusal(topics)

    def ranges(self, topics: str | Iterable[str]) -> NoReturn:
        """Refuse."""
        raise _refusal(topics)

    def decode(self, batch: LogBatch, *, log_id: int) -> NoReturn:
        """Refuse."""
        raise _refusal(batch, log_id)

    def decode_all(self, batches: Sequence[LogBatch], *, log_id: int) -> NoReturn:
        """Refuse."""
        raise _refusal(batches, log_id)

    def open_reader(self) -> NoReturn:
        """Refuse."""
        raise _refusal()


def _refusal(*_asked: object) -> UnavailableError:
    return UnavailableError("expected a question about the table alone (lake_only), found another", dependency="kafka")
