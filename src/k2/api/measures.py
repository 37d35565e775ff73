"""The metrics of the API process: requests, the queue, the engine and its tail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from k2.common.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import Counter

    from k2.api.frame import Exchange
    from k2.api.settings import ApiSettings
    from k2.api.streams.hub import LiveHub
    from k2.api.turns import Turns

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_REFUSED: Final = frozenset({429, 503})


class Measures:
    """What `/metrics` shows. Totals of the engine and the tail are carried over when they are asked for."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._metrics = metrics = Metrics()
        self._carried: dict[str, float] = {}
        self._seconds = metrics.histogram(
            "k2_api_request_seconds", "Time to answer, to the last byte sent", ["route", "status"], buckets=BUCKETS
        )
        self._rows = metrics.counter("k2_api_rows_total", "Rows answered", ["route"])
        self._bytes = metrics.counter("k2_api_answer_bytes_total", "Bytes of answers sent", ["route"])
        self._refused = metrics.counter(
            "k2_api_refused_total", "Requests refused with 429 or 503, by the reason in their answer", ["reason"]
        )
        self._concurrency = metrics.gauge("k2_api_concurrency_level", "Questions that may be answered at once now")
        self._unloaded = metrics.gauge(
            "k2_api_unloaded_seconds", "Time of an answer with few others beside it, as last measured", ["weight"]
        )
        self._sending = metrics.gauge("k2_api_sending_bytes", "Memory of answers that are being sent")
        self._busy = metrics.gauge("k2_api_busy_ratio", "Questions being answered, of those possible at once")
        self._queue = metrics.gauge("k2_api_queue_ratio", "Questions that wait for a turn, of those that may")
        self._unready = metrics.gauge("k2_api_unready_failures", "Reasons why questions cannot be answered in full now")
        self._questions = metrics.counter("k2_query_questions_total", "Questions that the engine was asked")
        self._failures = metrics.counter("k2_query_failures_total", "Questions that the engine could not answer")
        self._partial = metrics.counter("k2_query_partial_total", "Answers that were not complete")
        self._from_log = metrics.counter("k2_query_log_rows_total", "Rows of answers that came from the log")
        self._engine_seconds = metrics.counter("k2_query_seconds_total", "Time that the engine spent on answers")
        self._streams = metrics.gauge("k2_api_streams_level", "Streams that are open")
        self._of_streams = {
            "opened": metrics.counter("k2_api_streams_opened_total", "Streams that were opened"),
            "rows": metrics.counter("k2_api_streams_rows_total", "Rows that streams were sent"),
            "left_out": metrics.counter("k2_api_streams_left_out_total", "Times that a slow reader was left out rows"),
            "caught_up": metrics.counter(
                "k2_api_streams_caught_up_total", "Times that a stream has read from the engine up to the newest record"
            ),
        }
        self._tail_rows = metrics.gauge("k2_tail_rows", "Rows that the tail holds")
        self._tail_bytes = metrics.gauge("k2_tail_size_bytes", "Memory that the tail's rows take")
        self._tail_bytes_max = metrics.gauge("k2_tail_size_max_bytes", "Memory that the tail's rows may take")

    def observe(self, exchange: Exchange) -> None:
        """Count one request that is over; how long a stream was open is no time of an answer."""
        if not exchange.facts.get("stream"):
            self._seconds.labels(exchange.route, str(exchange.status)).observe(exchange.seconds)
        self._bytes.labels(exchange.route).inc(exchange.sent_bytes)
        self._rows.labels(exchange.route).inc(exchange.facts.get("rows", 0))
        if exchange.status in _REFUSED:
            self._refused.labels(exchange.facts.get("reason", "other")).inc()

    def render(self, stats: Mapping[str, Any], turns: Turns, unready: int, hub: LiveHub) -> bytes:
        """Return all values, those of the engine's `stats` among them, in Prometheus' text format."""
        self._concurrency.set(turns.limit.limit)
        for weight, seconds in turns.limit.unloaded_seconds.items():
            self._unloaded.labels(weight.lower()).set(seconds)
        self._sending.set(turns.held_bytes)
        self._busy.set(turns.running / self._settings.concurrency_max)
        self._queue.set(turns.waiting / max(self._settings.queue_max, 1))
        self._unready.set(unready)
        self._streams.set(hub.streams)
        for name in ("opened", "rows", "left_out", "caught_up"):
            self._carry(self._of_streams[name], f"streams {name}", hub.counts[name])
        self._carry(self._questions, "queries", stats.get("queries", 0))
        self._carry(self._failures, "failures", stats.get("failures", 0))
        self._carry(self._partial, "partial", stats.get("partial", 0))
        self._carry(self._from_log, "rows_from_log", stats.get("rows_from_log", 0))
        self._carry(self._engine_seconds, "seconds", stats.get("seconds", 0.0))
        tail: Mapping[str, Any] = stats.get("tail", {})
        self._tail_rows.set(tail.get("rows", 0))
        self._tail_bytes.set(tail.get("size_bytes", 0))
        self._tail_bytes_max.set(tail.get("size_bytes_max", 0))
        return self._metrics.render()

    def _carry(self, counter: Counter, name: str, total: float) -> None:
        counter.inc(max(0.0, total - self._carried.get(name, 0.0)))
        self._carried[name] = total
