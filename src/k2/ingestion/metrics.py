"""The ingest worker's metrics: an observer that turns events into Prometheus values."""

from __future__ import annotations

from functools import singledispatchmethod
from typing import TYPE_CHECKING, Final

from k2.common.circuit_breaker import LevelChanged
from k2.common.degradation import Priority
from k2.common.degradation_metrics import DegradationMetrics
from k2.ingestion import events

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.common.metrics import Metrics

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BACKFILL_FATES: Final = ("rows", "duplicates", "dead_letters", "lost")
LINE_OUTCOMES: Final = ("first", "second", "lost", "late")
_ROWS: Final = (1, 10, 100, 1_000, 10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)


class IngestMetrics:
    """Counts what the worker tells."""

    def __init__(self, metrics: Metrics, *, clock: Clock) -> None:
        self._clock = clock
        self._degradation = DegradationMetrics(metrics)
        table, topic = ["table"], ["topic"]
        self._rows = metrics.counter("k2_ingest_rows_total", "Rows committed", table)
        self._commits = metrics.counter("k2_ingest_commits_total", "Batches committed", table)
        self._write_seconds = metrics.histogram(
            "k2_ingest_write_seconds", "Time to sort and write a batch's files", table, buckets=_SECONDS
        )
        self._commit_seconds = metrics.histogram(
            "k2_ingest_commit_seconds", "Time to commit a batch", table, buckets=_SECONDS
        )
        self._batch_rows = metrics.histogram("k2_ingest_batch_rows", "Rows of a batch", table, buckets=_ROWS)
        self._commit_sequence = metrics.gauge(
            "k2_ingest_commit_sequence", "Number of the newest commit of this worker", table
        )
        self._since_commit = metrics.gauge("k2_ingest_since_commit_seconds", "Time since the last commit", table)
        self._dead_letters = metrics.counter(
            "k2_ingest_dead_letters_total", "Records that could not become rows", ["table", "error_class"]
        )
        self._duplicates = metrics.counter("k2_ingest_duplicates_total", "Records dropped: stored before", table)
        self._conflicts = metrics.counter(
            "k2_ingest_conflicts_total", "Records kept that say other than an earlier one of the same identity", table
        )
        self._fenced = metrics.counter("k2_ingest_fenced_total", "Batches refused by the fence", table)
        self._failures = metrics.gauge("k2_ingest_commit_failures", "Failed commits in a row", table)
        self._failed = metrics.counter("k2_ingest_failed_commits_total", "Failed commits", table)
        self._stopped = metrics.gauge("k2_ingest_table_stopped_info", "1 while a table is not written any more", table)
        self._refused = metrics.gauge("k2_ingest_topic_refused_info", "1 while a topic is refused", topic)
        self._read_failures = metrics.gauge(
            "k2_ingest_read_failures", "Failures in a row, by part of reading", ["part"]
        )
        self._buffered = metrics.gauge("k2_ingest_buffer_bytes", "Bytes consumed and not decoded yet", table)
        self._paused = metrics.gauge("k2_ingest_paused_info", "1 while a table's partitions are paused", table)
        stream = [*table, "exchange", "stream"]
        self._mutes = metrics.counter("k2_mutes_total", "Symbols and whole partitions (feed) that fell silent", stream)
        self._mutes_over = metrics.counter("k2_mutes_over_total", "Those that were heard again", stream)
        line = [*table, "exchange", "line"]
        self._line_numbers = metrics.counter(
            "k2_line_numbers_total", "Numbers of a venue's stream, by what a line did with them", [*line, "outcome"]
        )
        self._line_led = metrics.counter(
            "k2_line_led_total", "Numbers that a line brought before another, which brought them as well", line
        )
        self._line_lead = metrics.counter("k2_line_lead_seconds_total", "Log time by which a line led, added up", line)
        self._messages = metrics.counter(
            "k2_sequence_messages_total", "Numbered messages, by what they were to their stream", ["table", "kind"]
        )
        self._numbers = metrics.counter(
            "k2_gap_numbers_total", "Numbers that gap events are about: opened, filled, lost", ["table", "event"]
        )
        self._gaps = metrics.counter("k2_gaps_total", "Gaps opened, by how large they are", ["table", "level"])
        self._doubted = metrics.gauge(
            "k2_sequence_doubted_info", "1 while so many gaps open in a topic that its numbers are doubted", topic
        )
        self._lag = metrics.gauge(
            "k2_ingest_lag_records", "Offsets between the seam and the log's end", ["table", "topic", "partition"]
        )
        self._announced = metrics.counter(
            "k2_level_announcements_total", "Announcements of this worker's level: sent, failed, dropped", ["outcome"]
        )
        self._backfilled = metrics.counter(
            "k2_backfill_records_total", "Deferred records that were written, by what became of them", ["table", "fate"]
        )
        self._backfills = metrics.counter("k2_backfill_commits_total", "Parts of deferred ranges committed", table)
        self._backfill_failures = metrics.gauge("k2_backfill_failures", "Failed steps of the backfill in a row", table)
        self._backfill_stopped = metrics.gauge(
            "k2_backfill_stopped_info", "1 while deferred records of a table are not written any more", table
        )
        place = ["table", "topic", "partition"]
        self._outstanding = metrics.gauge("k2_backfill_outstanding_records", "Records deferred, not written yet", place)
        self._halted_streams = metrics.gauge("k2_halted_streams", "Streams deferred since a gap of halting size", place)
        self._near_retention = metrics.gauge(
            "k2_backfill_near_retention_info", "1 while the log will soon delete deferred records", place
        )

    def __call__(self, event: events.Event, /) -> None:
        """Count the event."""
        self._count(event)

    def begin(self, tables: tuple[str, ...]) -> None:
        """Show each table from the start, with nothing committed yet."""
        for table in tables:
            self._rows.labels(table).inc(0)
            self._commits.labels(table).inc(0)
            self._duplicates.labels(table).inc(0)
            self._conflicts.labels(table).inc(0)
            self._fenced.labels(table).inc(0)
            self._failed.labels(table).inc(0)
            for level in ("log", "alert", "halt"):
                self._gaps.labels(table, level).inc(0)
            self._failures.labels(table).set(0)
            self._stopped.labels(table).set(0)
            self._backfills.labels(table).inc(0)
            self._backfill_failures.labels(table).set(0)
            self._backfill_stopped.labels(table).set(0)
            for fate in BACKFILL_FATES:
                self._backfilled.labels(table, fate).inc(0)
            self._show_time_since_commit(table)

    def _show_time_since_commit(self, table: str) -> None:
        at = self._clock.monotonic()
        self._since_commit.labels(table).set_function(lambda: self._clock.monotonic() - at)

    @singledispatchmethod
    def _count(self, event: events.Event) -> None:
        raise TypeError(f"an event without a metric: {type(event).__name__}")

    @_count.register
    def _(self, event: events.BatchCommitted) -> None:
        self._rows.labels(event.table).inc(event.rows)
        self._commits.labels(event.table).inc()
        self._duplicates.labels(event.table).inc(event.duplicates)
        self._write_seconds.labels(event.table).observe(event.write_seconds)
        self._commit_seconds.labels(event.table).observe(event.commit_seconds)
        self._batch_rows.labels(event.table).observe(event.rows)
        self._commit_sequence.labels(event.table).set(event.commit_sequence)
        self._failures.labels(event.table).set(0)
        self._show_time_since_commit(event.table)

    @_count.register
    def _(self, event: events.CommitFailed) -> None:
        self._failures.labels(event.table).set(event.failures)
        self._failed.labels(event.table).inc()

    @_count.register
    def _(self, event: events.BatchFenced) -> None:
        self._fenced.labels(event.table).inc()

    @_count.register
    def _(self, event: events.RecordsDeadLettered) -> None:
        for error_class, records in event.by_error_class.items():
            self._dead_letters.labels(event.table, error_class).inc(records)

    @_count.register
    def _(self, event: events.RecordsDeferred) -> None:
        for (priority, reason), records in event.records.items():
            self._degradation.shed(Priority[priority.upper()], reason, records)

    @_count.register(LevelChanged)
    def _(self, event: LevelChanged) -> None:
        self._degradation.changed(event)

    @_count.register
    def _(self, event: events.LoadMeasured) -> None:
        self._degradation.measured(event.lag_records, event.drain_seconds, event.deferred_seconds)

    @_count.register
    def _(self, event: events.RecordsInConflict) -> None:
        self._conflicts.labels(event.table).inc(sum(map(len, event.offsets.values())))

    @_count.register
    def _(self, event: events.TopicRefused) -> None:
        self._refused.labels(event.topic).set(1)

    @_count.register
    def _(self, event: events.TopicAccepted) -> None:
        self._refused.labels(event.topic).set(0)

    @_count.register
    def _(self, event: events.TableStopped) -> None:
        self._stopped.labels(event.table).set(1)

    @_count.register
    def _(self, event: events.LinesCompared) -> None:
        for name, counts in event.lines.items():
            labels = (event.table, event.exchange, name)
            for outcome in LINE_OUTCOMES:
                self._line_numbers.labels(*labels, outcome).inc(getattr(counts, outcome))
            self._line_led.labels(*labels).inc(counts.led)
            self._line_lead.labels(*labels).inc(counts.lead_seconds)

    @_count.register
    def _(self, event: events.SequencesWatched) -> None:
        for kind, messages in event.messages.items():
            self._messages.labels(event.table, kind).inc(messages)
        for kind, numbers in event.numbers.items():
            self._numbers.labels(event.table, kind).inc(numbers)

    @_count.register
    def _(self, event: events.GapOpened) -> None:
        self._gaps.labels(event.table, event.level).inc()

    @_count.register
    def _(self, event: events.NumbersDoubted) -> None:
        self._doubted.labels(event.topic).set(1)

    @_count.register
    def _(self, event: events.NumbersTrusted) -> None:
        self._doubted.labels(event.topic).set(0)

    @_count.register
    def _(self, event: events.StreamSilent) -> None:
        self._mutes.labels(event.table, event.exchange, _kind_of(event.symbol)).inc()

    @_count.register
    def _(self, event: events.StreamHeard) -> None:
        self._mutes_over.labels(event.table, event.exchange, _kind_of(event.symbol)).inc()

    @_count.register
    def _(self, event: events.ReadFailed) -> None:
        self._read_failures.labels(event.part).set(event.failures)

    @_count.register
    def _(self, event: events.ReadRecovered) -> None:
        self._read_failures.labels(event.part).set(0)

    @_count.register
    def _(self, event: events.Buffered) -> None:
        self._buffered.labels(event.table).set(event.bytes_buffered)
        self._paused.labels(event.table).set(event.paused)

    @_count.register
    def _(self, event: events.LagMeasured) -> None:
        self._lag.labels(event.table, event.topic, str(event.partition)).set(event.records)

    @_count.register
    def _(self, event: events.LevelsAnnounced) -> None:
        self._announced.labels(event.outcome).inc(event.announcements)

    @_count.register
    def _(self, event: events.BackfillCommitted) -> None:
        for fate in ("rows", "duplicates", "dead_letters"):
            self._backfilled.labels(event.table, fate).inc(getattr(event, fate))
        self._backfills.labels(event.table).inc()
        self._backfill_failures.labels(event.table).set(0)
        self._commit_sequence.labels(event.table).set(event.commit_sequence)
        self._outstanding.labels(event.table, event.topic, str(event.partition)).set(event.records_left)

    @_count.register
    def _(self, event: events.BackfillFenced) -> None:
        self._fenced.labels(event.table).inc()

    @_count.register
    def _(self, event: events.BackfillFailed) -> None:
        self._backfill_failures.labels(event.table).set(event.failures)

    @_count.register
    def _(self, event: events.BackfillStopped) -> None:
        self._backfill_stopped.labels(event.table).set(1)

    @_count.register
    def _(self, event: events.DeferredOutstanding) -> None:
        place = (event.table, event.topic, str(event.partition))
        self._outstanding.labels(*place).set(event.records)
        self._near_retention.labels(*place).set(event.near_retention)
        self._halted_streams.labels(*place).set(event.halted_streams)

    @_count.register
    def _(self, event: events.DeferredNearRetention) -> None:
        self._near_retention.labels(event.table, event.topic, str(event.partition)).set(1)

    @_count.register
    def _(self, event: events.DeferredLost) -> None:
        self._backfilled.labels(event.table, "lost").inc(event.records)


def _kind_of(symbol: str | None) -> str:
    return "feed" if symbol is None else "symbol"
