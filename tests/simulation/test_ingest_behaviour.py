"""What one worker does in one situation; no chance is involved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k2.common.errors import LogIdentityError, UnavailableError
from k2.ingestion import events
from k2.ingestion.health import WorkerHealth
from k2.storage.seam import LogPartition
from k2.testing.simulated_ingest import TOPICS, SimulatedIngest

ASX, SIM, QUOTES = TOPICS
KEY = (ASX, 0)


@pytest.fixture
def world():
    simulated = SimulatedIngest(1, partitions=1)
    simulated.settings = simulated.settings.model_copy(
        update={"commit_rows_max": 100, "buffer_bytes_max": 10_000, "pause_after_seconds": 0.0}
    )
    return simulated


@pytest.fixture
def worker(world):
    started = world.start_worker()
    world.rebalance()
    return started


def go(world, worker, *, steps=5, seconds=0.0):
    for _ in range(steps):
        world.clock.sleep(seconds)
        worker.step_consumer()
        worker.step_writer()


def of(worker, kind):
    return [event for event in worker.events if isinstance(event, kind)]


def log_id(world, topic):
    return next(log.log_id for log in world.tables.tables[TOPICS[topic]].head.logs if log.topic == topic)


def rows(world, name="trades"):
    return len(world.tables.tables[name].coordinates())


def test_records_wait_for_the_interval(world, worker):
    world.log.append(*KEY, b"good")

    go(world, worker, seconds=0.9)
    before = rows(world)
    go(world, worker, steps=1, seconds=5)

    assert (before, rows(world)) == (0, 1)


def test_a_started_workers_first_records_wait_for_less(world):
    world.settings = world.settings.model_copy(update={"first_commit_seconds": 0.5})
    started = world.start_worker()
    world.rebalance()
    world.log.append(*KEY, b"good")
    go(world, started, seconds=0.2)
    first = rows(world)

    world.log.append(*KEY, b"good")
    go(world, started, seconds=0.9)
    second = rows(world)
    go(world, started, seconds=0.9)

    assert (first, second, rows(world)) == (1, 1, 2)


def test_many_records_do_not_wait(world, worker):
    world.log.append(*KEY, *[b"good"] * 100)

    go(world, worker, steps=30)

    assert rows(world) >= 100


def test_nothing_to_commit_makes_no_commit(world, worker):
    go(world, worker, steps=20, seconds=3)

    assert world.tables.tables["trades"].commits == 0


def test_group_offsets_follow_the_commit(world, worker):
    world.log.append(*KEY, b"good", b"good")

    go(world, worker, steps=2)
    before = dict(worker.reader.committed)
    go(world, worker, seconds=6)

    assert before == {}
    assert worker.reader.committed[KEY] == 2


def test_an_outage_keeps_the_batch_and_goes_on_by_itself(world, worker):
    world.log.append(*KEY, *[b"good"] * 5)
    world.faults.before_commit = lambda: True

    go(world, worker, steps=10, seconds=6)
    during = rows(world)
    world.faults.before_commit = lambda: False
    go(world, worker, steps=10, seconds=20)

    assert (during, rows(world)) == (0, 5)
    assert len(world.tables.files) == 1, "the files were written once"


def test_pauses_between_tries_grow_to_their_bound(world, worker):
    world.log.append(*KEY, b"good")
    world.faults.before_commit = lambda: True

    go(world, worker, steps=40, seconds=20)

    pauses = [event.pause_seconds for event in of(worker, events.CommitFailed)]
    assert pauses[:7] == [0.5, 1, 2, 4, 8, 15, 15]


def test_failures_in_a_row_make_the_worker_unready_until_a_commit(world, worker):
    health = WorkerHealth(world.settings)
    health(events.ReadRecovered(events.Reading.JOIN))
    world.log.append(*KEY, b"good")
    world.faults.before_commit = lambda: True
    go(world, worker, steps=8, seconds=20)
    for event in worker.events:
        health(event)
    during = health.reasons()

    world.faults.before_commit = lambda: False
    go(world, worker, steps=2, seconds=20)
    for event in worker.events:
        health(event)

    assert "failed commits in a row" in during[0]
    assert health.reasons() == []


def test_a_lost_reply_is_a_success(world, worker):
    world.log.append(*KEY, *[b"good"] * 5)
    replies = iter([True])
    world.faults.reply_lost = lambda: next(replies, False)

    go(world, worker, steps=5, seconds=6)

    assert rows(world) == 5
    assert len(of(worker, events.BatchCommitted)) == 1
    assert of(worker, events.BatchFenced) == []


def test_a_fenced_batch_is_dropped_and_reading_goes_on_at_the_seam(world, worker):
    world.log.append(*KEY, *[b"good"] * 8)
    go(world, worker, steps=2)
    other = world.start_worker()
    world.group.rebalance({worker.reader: [KEY], other.reader: [KEY]})
    go(world, other, steps=3, seconds=6)

    go(world, worker, steps=3, seconds=6)
    world.log.append(*KEY, b"good")
    go(world, worker, steps=3, seconds=6)

    assert sorted(world.tables.tables["trades"].coordinates()) == [
        (log_id(world, ASX), 0, offset) for offset in range(9)
    ]
    assert of(worker, events.BatchFenced)


def test_dead_letter_topic_down_holds_the_commit_back(world, worker, monkeypatch):
    world.log.append(*KEY, b"good", b"bad", b"good")
    go(world, worker, steps=2)
    monkeypatch.setattr("k2.testing.simulated_log.SimulatedProducer.flush", _refuse)
    go(world, worker, steps=3, seconds=10)
    during = rows(world), len(world.tables.dead_letters)
    monkeypatch.undo()

    go(world, worker, steps=3, seconds=20)

    assert during == (0, 0)
    assert (rows(world), len(world.tables.dead_letters)) == (2, 1)


def _refuse(_producer, _timeout_seconds):
    raise UnavailableError("no dead letters today", dependency="kafka")


def test_a_dead_letter_keeps_its_bytes_and_says_where_it_came_from(world, worker):
    world.log.append(*KEY, b"good", b"bad bytes")

    go(world, worker, steps=3, seconds=6)

    [(key, value, headers)] = world.log.sent[f"{ASX}.dlq"]
    assert (key, value) == (b"SYM", b"bad bytes")
    assert (headers["k2.topic"], headers["k2.offset"], headers["k2.error_class"]) == (ASX.encode(), b"1", b"Bad")
    [event] = world.tables.dead_letters.values()
    assert (event["value"], event["reason"], event["log_offset"]) == (b"bad bytes", "it is bad", 1)


def test_a_topic_created_again_is_refused_and_the_others_go_on(world, worker):
    world.log.append(*KEY, b"good")
    world.log.append(SIM, 0, b"good")
    go(world, worker, steps=3, seconds=6)
    world.log.create(ASX, 1, topic_id="topic-2")
    world.log.append(*KEY, *[b"good"] * 9)
    world.log.append(SIM, 0, b"good")

    go(world, worker, steps=12, seconds=6)

    expected = [(log_id(world, ASX), 0, 0), (log_id(world, SIM), 0, 0), (log_id(world, SIM), 0, 1)]
    assert sorted(world.tables.tables["trades"].coordinates()) == sorted(expected)
    [refused] = of(worker, events.TopicRefused)
    assert refused.topic == ASX
    assert "deleted and created again" in refused.reason


def test_a_topic_accepted_as_a_new_log_begins_at_its_start(world, worker):
    world.log.append(*KEY, b"good", b"good")
    go(world, worker, steps=3, seconds=6)
    world.log.create(ASX, 1, topic_id="topic-2")
    world.log.append(*KEY, b"good")
    world.kill(worker)
    successor = world.start_worker()
    successor.worker.accept_new_logs([ASX])
    world.rebalance()

    go(world, successor, steps=4, seconds=6)

    logs = [log for log in world.tables.tables["trades"].head.logs if log.topic == ASX]
    assert [log.topic_id for log in logs] == [f"{ASX}/topic-1", f"{ASX}/topic-2"]
    assert (logs[1].log_id, 0, 0) in world.tables.tables["trades"].coordinates()


def test_a_log_shorter_than_the_seam_stays_refused_when_it_has_grown_past_it(world, worker):
    world.log.append(*KEY, *[b"good"] * 50)
    go(world, worker, steps=12, seconds=6)
    del world.log.topics[ASX].partitions[0][40:]
    world.kill(worker)
    successor = world.start_worker()
    world.rebalance()
    go(world, successor, steps=3, seconds=20)
    world.log.append(*KEY, *[b"good"] * 30)

    go(world, successor, steps=5, seconds=20)

    [refused] = of(successor, events.TopicRefused)
    assert "seam says 50, log ends at 40: 10 records" in refused.reason
    assert rows(world) == 50


def test_a_broker_that_shows_an_old_end_for_a_moment_is_waited_for(world, worker):
    world.log.append(*KEY, *[b"good"] * 50)
    go(world, worker, steps=12, seconds=6)
    recovered = world.log.topics[ASX].partitions[0][40:]
    del world.log.topics[ASX].partitions[0][40:]
    world.kill(worker)
    world.settings = world.settings.model_copy(update={"log_end_grace_seconds": 10.0})
    successor = world.start_worker()
    world.rebalance()
    go(world, successor, steps=2, seconds=1)
    world.log.append(*KEY, *recovered, b"good")

    go(world, successor, steps=6, seconds=6)

    assert of(successor, events.TopicRefused) == []
    assert rows(world) == 51


def test_a_seam_that_retention_has_passed_is_refused(world, worker):
    world.log.append(*KEY, *[b"good"] * 5)
    go(world, worker, steps=5, seconds=6)
    world.kill(worker)
    world.log.append(*KEY, *[b"good"] * 20)
    world.log.cut_below(*KEY, 15)
    successor = world.start_worker()
    world.rebalance()

    go(world, successor, steps=3, seconds=6)

    [refused] = of(successor, events.TopicRefused)
    assert "offsets 5 to 14 (10 records)" in refused.reason
    assert rows(world) == 5


def test_a_ledger_that_does_not_add_up_stops_its_table_only(world, worker, monkeypatch):
    decoder = worker.worker.writer_loop.lanes["trades"]._decoder
    decode = decoder.decode
    monkeypatch.setattr(
        decoder, "decode", lambda batch, *, log_id: (d := decode(batch, log_id=log_id), replace(d, rows=d.rows[1:]))[1]
    )
    world.log.append(*KEY, *[b"good"] * 5)
    world.log.append(QUOTES, 0, *[b"good"] * 5)

    go(world, worker, steps=8, seconds=6)

    [stopped] = of(worker, events.TableStopped)
    assert stopped.table == "trades"
    assert "consumed 5" in stopped.reason
    assert "unaccounted for; nothing was committed" in stopped.reason
    assert (rows(world), rows(world, "quotes")) == (0, 5)


def test_a_seam_below_the_batch_stops_the_table(world, worker):
    world.log.append(*KEY, *[b"good"] * 5)
    go(world, worker, steps=3, seconds=6)
    table = world.tables.tables["trades"]
    before = table.head
    world.log.append(*KEY, *[b"good"] * 5)
    go(world, worker, steps=2)
    key = LogPartition(log_id(world, ASX), 0)
    rolled_back = {**before.seam.partitions, key: replace(before.seam.partitions[key], next_offset=2)}
    table.head = replace(before, seam=replace(before.seam, partitions=rolled_back))

    go(world, worker, steps=3, seconds=6)

    [stopped] = of(worker, events.TableStopped)
    assert LogIdentityError.__name__ in stopped.reason
    assert rows(world) == 5


def test_a_full_buffer_pauses_its_table_and_resumes_it(world, worker):
    world.settings = world.settings.model_copy(update={"buffer_bytes_max": 60})
    world.kill(worker)
    tight = world.start_worker()
    world.rebalance()
    world.log.append(*KEY, *[b"good"] * 500)
    for _ in range(200):
        tight.step_consumer()
        assert tight.worker.handover.bytes_waiting("trades") < 60 + 12 * 4

    world.settle()

    paused = [event.paused for event in of(tight, events.Buffered) if event.table == "trades"]
    assert True in paused
    assert rows(world) == 500


def test_an_assignment_while_the_catalog_is_down_is_positioned_later(world):
    world.faults.head_fails = lambda: True
    world.log.append(*KEY, *[b"good"] * 5)
    worker = world.start_worker()
    world.rebalance()
    go(world, worker, steps=3, seconds=1)
    during = worker.worker.intake.positions()
    world.faults.head_fails = lambda: False

    go(world, worker, steps=6, seconds=6)

    assert during == {}
    assert rows(world) == 5


def test_what_is_pending_is_committed_before_partitions_go(world, worker):
    world.log.append(*KEY, *[b"good"] * 5)
    go(world, worker, steps=2)
    before = rows(world)

    world.group.rebalance({})
    worker.step_consumer()

    assert (before, rows(world)) == (0, 5)
    assert worker.reader.committed[KEY] == 5


def test_new_schemas_are_recorded_with_the_commit_that_used_them(world, worker):
    lane = worker.worker.writer_loop.lanes["trades"]
    lane._schemas.schema_text(7)
    world.log.append(*KEY, b"good")

    go(world, worker, steps=3, seconds=6)

    assert world.tables.tables["trades"].head.schemas == {7: "schema 7"}
    assert lane._schemas.newly_met == {}


def test_a_bad_record_of_a_log_registered_later_is_sent_on(world, worker):
    world.group.rebalance({worker.reader: [KEY]})
    world.log.append(*KEY, b"good")
    go(world, worker, steps=3, seconds=6)
    world.group.rebalance({worker.reader: [KEY, (SIM, 0)]})
    world.log.append(*KEY, b"good")
    go(world, worker, steps=3, seconds=6)  # its commit tells the seam of the log that is new, and not whose it is
    world.log.append(SIM, 0, b"good", b"bad")

    go(world, worker, steps=4, seconds=6)

    assert rows(world) == 3
    assert [event["log_offset"] for event in world.tables.dead_letters.values()] == [1]
