"""Is the worker alive, and is it doing its work? An observer that keeps the reasons why not."""

from __future__ import annotations

import threading
from functools import singledispatchmethod
from typing import TYPE_CHECKING

from k2.common.logging import get_logger
from k2.ingestion import events

if TYPE_CHECKING:
    from k2.ingestion.settings import IngestionSettings

log = get_logger(__name__)

_SHOWN_MAX = 5


class WorkerHealth:
    """Why the worker is not ready, by part; logs each event that a person may want to see."""

    def __init__(self, settings: IngestionSettings) -> None:
        self._alert_after = settings.alert_after_failures
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {f"read:{events.Reading.JOIN}": "has not joined its group yet"}

    def __call__(self, event: events.Event, /) -> None:
        """Take note of the event."""
        self._note(event)

    def reasons(self) -> list[str]:
        """Return why the worker is not ready; empty when it is."""
        with self._lock:
            return [f"{key}: {reason}" for key, reason in sorted(self._reasons.items())]

    @singledispatchmethod
    def _note(self, event: events.Event) -> None:
        """Levels that metrics show say nothing about health."""

    @_note.register
    def _(self, event: events.BatchCommitted) -> None:
        self._clear(f"table:{event.table}")
        log.info("batch_committed", **_fields(event))

    @_note.register
    def _(self, event: events.CommitFailed) -> None:
        log.warning("commit_failed", **_fields(event))
        if event.failures >= self._alert_after:
            self._set(f"table:{event.table}", f"{event.failures} failed commits in a row: {event.reason}")

    @_note.register
    def _(self, event: events.BatchFenced) -> None:
        self._clear(f"table:{event.table}")
        log.warning("batch_fenced", **_fields(event))

    @_note.register
    def _(self, event: events.TableStopped) -> None:
        self._clear(f"table:{event.table}")
        self._set(f"stopped:{event.table}", f"{event.table} is not written any more: {event.reason}")
        log.error("table_stopped", **_fields(event))

    @_note.register
    def _(self, event: events.TopicRefused) -> None:
        self._set(f"topic:{event.topic}", event.reason)
        log.error("topic_refused", **_fields(event))

    @_note.register
    def _(self, event: events.TopicAccepted) -> None:
        self._clear(f"topic:{event.topic}")
        log.info("topic_accepted", **_fields(event))

    @_note.register
    def _(self, event: events.ReadFailed) -> None:
        log.warning("read_failed", **_fields(event))
        if event.failures >= self._alert_after:
            self._set(f"read:{event.part}", f"failed {event.failures} times in a row: {event.reason}")

    @_note.register
    def _(self, event: events.ReadRecovered) -> None:
        self._clear(f"read:{event.part}")

    @_note.register
    def _(self, event: events.RecordsDeadLettered) -> None:
        log.warning("records_dead_lettered", **_fields(event))

    @_note.register
    def _(self, event: events.RecordsInConflict) -> None:
        first = {f"{at.log_id}/{at.partition}": offsets[:_SHOWN_MAX] for at, offsets in event.offsets.items()}
        log.error(
            "records_in_conflict", table=event.table, records=sum(map(len, event.offsets.values())), first_offsets=first
        )

    @_note.register
    def _(self, event: events.GapOpened) -> None:
        tell = log.info if event.level == "log" else log.warning
        tell("gap_opened", **_fields(event))

    @_note.register
    def _(self, event: events.NumbersDoubted) -> None:
        log.error(
            "numbers_doubted",
            **_fields(event),
            advice="does each symbol of this topic count by itself? If not, its exchange's sequence_scope in "
            "topics.yaml is wrong: set channel, or none to watch no numbers",
        )

    @_note.register
    def _(self, event: events.NumbersTrusted) -> None:
        log.info("numbers_trusted", **_fields(event))

    @_note.register
    def _(self, event: events.StreamSilent) -> None:
        log.warning("stream_silent", **_fields(event))

    @_note.register
    def _(self, event: events.StreamHeard) -> None:
        log.info("stream_heard", **_fields(event))

    @_note.register
    def _(self, event: events.BackfillCommitted) -> None:
        self._clear(f"backfill:{event.table}")
        log.info("backfill_committed", **_fields(event))

    @_note.register
    def _(self, event: events.BackfillFenced) -> None:
        log.warning("backfill_fenced", **_fields(event))

    @_note.register
    def _(self, event: events.BackfillFailed) -> None:
        log.warning("backfill_failed", **_fields(event))
        if event.failures >= self._alert_after:
            self._set(f"backfill:{event.table}", f"failed {event.failures} times in a row: {event.reason}")

    @_note.register
    def _(self, event: events.DeferredOutstanding) -> None:
        if not event.records:  # by whomever it was written
            self._clear(f"backfill:{event.table}")

    @_note.register
    def _(self, event: events.BackfillStopped) -> None:
        self._set(f"backfill stopped:{event.table}", f"deferred records are not written any more: {event.reason}")
        log.error("backfill_stopped", **_fields(event))

    @_note.register
    def _(self, event: events.DeferredNearRetention) -> None:
        log.error("deferred_near_retention", **_fields(event))

    @_note.register
    def _(self, event: events.DeferredLost) -> None:
        log.error("deferred_lost", **_fields(event))

    def _set(self, key: str, reason: str) -> None:
        with self._lock:
            self._reasons[key] = reason

    def _clear(self, key: str) -> None:
        with self._lock:
            self._reasons.pop(key, None)


def _fields(event: events.Event) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}
