import json
import urllib.error
import urllib.request
from typing import get_args

import pytest

from k2.common.circuit_breaker import LevelChanged
from k2.common.degradation import Cause, DegradationLevel, Load, Priority
from k2.common.errors import ConfigurationError
from k2.common.metrics import Metrics
from k2.ingestion import events
from k2.ingestion.events import LineCounts
from k2.ingestion.health import WorkerHealth
from k2.ingestion.metrics import IngestMetrics
from k2.ingestion.settings import IngestionSettings
from k2.ingestion.status_server import StatusServer
from k2.storage.seam import LogPartition
from k2.testing.manual_clock import ManualClock

EXAMPLES = [
    events.BatchCommitted("trades", 9, 1, 10, 2, 0.2, 0.05, 7, 1, 3),
    events.CommitFailed("trades", 3, "disk full", 1.0),
    events.BatchFenced("trades", 10, "another writer"),
    events.RecordsDeadLettered("trades", {"NotFramed": 2}),
    events.RecordsDeferred("trades", {("low", "drain_time"): 8, ("normal", "held_back"): 2}),
    LevelChanged(DegradationLevel.NORMAL, DegradationLevel.GRACEFUL, Cause.LAG, Load(500_000), 1.0, 1),
    events.LoadMeasured(1_200, 2.5, {Priority.CRITICAL: 0.0, Priority.LOW: 40.0}),
    events.RecordsInConflict("trades", {LogPartition(0, 1): (7, 9)}),
    events.TopicRefused("market.t", "created again"),
    events.TopicAccepted("market.t"),
    events.TableStopped("trades", "does not add up"),
    events.LinesCompared("trades", "asx", {"a": LineCounts(9, 1, 2, 3, 8, 0.5)}),
    events.SequencesWatched("trades", {"normal": 7, "gap": 1}, {"opened": 120}),
    events.GapOpened("trades", "asx", "BHP", 100, 219, "alert"),
    events.NumbersDoubted("trades", "market.t", 1_000, 900),
    events.NumbersTrusted("trades", "market.t"),
    events.StreamSilent("trades", "asx", 1, None, 9.0, 5.0),
    events.StreamSilent("trades", "asx", 1, "BHP", 9.0, 5.0),
    events.StreamHeard("trades", "asx", 1, "BHP", 12.0),
    events.ReadFailed("poll", "broker down", 3),
    events.ReadRecovered("poll"),
    events.Buffered("trades", 100, True),
    events.LagMeasured("trades", "market.t", 3, 42),
    events.BackfillCommitted("trades", "market.t", 3, 90, 2, 1, 40, 0.2, 12),
    events.BackfillFenced("trades", "another wrote it"),
    events.BackfillFailed("trades", 3, "UnavailableError: down", 2.0),
    events.BackfillStopped("quotes", "AccountingError: counts"),
    events.DeferredOutstanding("trades", "market.t", 3, 40, near_retention=True, halted_streams=2),
    events.DeferredNearRetention("trades", "market.t", 3, 40, 100, 1.5),
    events.DeferredLost("trades", "market.t", 3, 7, 100, 200),
    events.LevelsAnnounced("failed", 2),
]


def of(kind):
    return next(event for event in EXAMPLES if isinstance(event, kind))


def value(metrics, line_start):
    lines = metrics.render().decode().splitlines()
    return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(line_start)]


def test_every_event_has_an_example_here():
    assert {type(event) for event in EXAMPLES} == set(get_args(events.Event))


def test_every_event_is_counted_and_noted():
    metrics, health = Metrics(), WorkerHealth(IngestionSettings())
    observer = events.Observers(IngestMetrics(metrics, clock=ManualClock()), health)

    for event in EXAMPLES:
        observer(event)

    assert value(metrics, 'k2_ingest_rows_total{table="trades"}') == [9]
    assert value(metrics, 'k2_ingest_dead_letters_total{error_class="NotFramed",table="trades"}') == [2]
    assert value(metrics, 'k2_ingest_fenced_total{table="trades"}') == [2]
    assert value(metrics, 'k2_backfill_records_total{fate="rows",table="trades"}') == [90]
    assert value(metrics, 'k2_backfill_records_total{fate="lost",table="trades"}') == [7]
    assert value(metrics, "k2_backfill_near_retention_info{") == [1]
    assert value(metrics, "k2_halted_streams{") == [2]
    assert value(metrics, 'k2_ingest_conflicts_total{table="trades"}') == [2]
    assert value(metrics, 'k2_messages_shed_total{reason="drain_time",symbol_tier="low"}') == [8]
    assert value(metrics, "k2_degradation_level ") == [2]
    assert value(metrics, "k2_degradation_lag_records ") == [1_200]
    assert value(metrics, "k2_degradation_drain_seconds ") == [2.5]
    assert value(metrics, 'k2_degradation_deferred_seconds{symbol_tier="low"}') == [40]
    assert value(metrics, 'k2_ingest_duplicates_total{table="trades"}') == [3]
    assert value(metrics, 'k2_ingest_commit_failures{table="trades"}') == [3]
    assert value(metrics, "k2_line_numbers_total{") == [9, 1, 2, 3]
    assert value(metrics, "k2_mutes_total{") == [1, 1]
    assert value(metrics, "k2_mutes_over_total{") == [1]
    assert value(metrics, "k2_line_lead_seconds_total{") == [0.5]
    assert value(metrics, "k2_ingest_lag_records{") == [42]
    assert value(metrics, 'k2_level_announcements_total{outcome="failed"}') == [2]
    assert value(metrics, 'k2_sequence_messages_total{kind="normal",table="trades"}') == [7]
    assert value(metrics, 'k2_gap_numbers_total{event="opened",table="trades"}') == [120]
    assert value(metrics, 'k2_gaps_total{level="alert",table="trades"}') == [1]
    assert value(metrics, "k2_sequence_doubted_info{") == [0]
    assert value(metrics, "process_resident_memory_bytes")[0] > 0


def test_time_since_the_last_commit_grows_until_the_next():
    metrics, clock = Metrics(), ManualClock()
    observer = IngestMetrics(metrics, clock=clock)
    observer.begin(("trades",))
    clock.advance(30)
    before = value(metrics, "k2_ingest_since_commit_seconds")

    observer(of(events.BatchCommitted))
    clock.advance(2)

    assert (before, value(metrics, "k2_ingest_since_commit_seconds")) == ([30], [2])


def test_a_metric_whose_name_has_no_unit_is_refused():
    with pytest.raises(ValueError, match="k2_lag"):
        Metrics().gauge("k2_lag", "Lag")


@pytest.mark.parametrize(
    ("bad", "good", "text"),
    [
        (of(events.CommitFailed), of(events.BatchCommitted), "3 failed commits in a row: disk full"),
        (of(events.TopicRefused), of(events.TopicAccepted), "created again"),
        (of(events.ReadFailed), of(events.ReadRecovered), "failed 3 times in a row: broker down"),
        (of(events.BackfillFailed), of(events.BackfillCommitted), "UnavailableError: down"),
        (
            of(events.BackfillFailed),
            events.DeferredOutstanding("trades", "market.t", 3, 0, near_retention=False),
            "failed 3 times",
        ),
    ],
)
def test_a_reason_stays_until_it_is_over(bad, good, text):
    health = WorkerHealth(IngestionSettings())
    health(events.ReadRecovered(events.Reading.JOIN))

    health(bad)
    during = health.reasons()
    health(good)

    assert text in during[0]
    assert health.reasons() == []


def test_a_stopped_table_stays_a_reason():
    health = WorkerHealth(IngestionSettings())
    health(of(events.TableStopped))
    health(of(events.BatchCommitted))

    assert any("does not add up" in reason for reason in health.reasons())


def test_one_failure_is_no_reason_yet():
    health = WorkerHealth(IngestionSettings())
    health(events.ReadRecovered(events.Reading.JOIN))

    health(events.CommitFailed("trades", 1, "busy", 0.5))

    assert health.reasons() == []


@pytest.fixture
def server():
    state = {"unready": ["table:trades: disk full"], "silent": 1.0}
    started = StatusServer(
        "127.0.0.1", 0, metrics=Metrics(), unready=lambda: state["unready"], silent_seconds=lambda: state["silent"],
        silent_seconds_max=60,
    )  # fmt: skip
    started.start()
    yield started, state
    started.stop()


def get(server, path):
    host, port = server.address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}") as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_readyz_says_why_not(server):
    started, state = server
    during = get(started, "/readyz")
    state["unready"] = []

    assert during[0] == 503
    assert json.loads(during[1])["reasons"] == ["table:trades: disk full"]
    assert get(started, "/readyz")[0] == 200


def test_livez_fails_when_a_thread_is_silent(server):
    started, state = server
    before = get(started, "/livez")[0]
    state["silent"] = 61.0

    assert (before, get(started, "/livez")[0]) == (200, 503)


def test_metrics_are_served_and_other_paths_are_not(server):
    started, _ = server

    assert b"process_resident_memory_bytes" in get(started, "/metrics")[1]
    assert get(started, "/other")[0] == 404


def test_a_port_in_use_is_one_clear_error(server):
    started, _ = server

    with pytest.raises(ConfigurationError, match="--metrics-port"):
        StatusServer(
            *started.address, metrics=Metrics(), unready=list, silent_seconds=lambda: 0.0, silent_seconds_max=60
        )
