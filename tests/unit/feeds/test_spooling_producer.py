"""What a spool took reaches the log once and in order, whatever becomes of the broker and of the process."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from k2.common.errors import ConfigurationError, K2Error, RecordError, UnavailableError
from k2.feeds.settings import SpoolSettings
from k2.feeds.spool import Spool
from k2.feeds.spooling_producer import SpoolingProducer
from k2.kafka.ports import NotYetAcknowledgedError
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeProducer, FakeReader
from k2.testing.manual_clock import ManualClock

SETTINGS = SpoolSettings(bytes_max=2**20, segment_bytes=2048, fsync="never", unacknowledged_max=50)
TOPICS = ("trades", "status")
STEPS_MAX = 1_000


@pytest.fixture
def log() -> FakeLog:
    log = FakeLog()
    log.create_topic("trades", 3)
    log.create_topic("status")
    return log


def producer_of(log: FakeLog, directory: Path, make_producer=None, settings=SETTINGS) -> SpoolingProducer:
    clock = ManualClock()
    return SpoolingProducer(
        Spool(directory, settings, clock),
        topics=TOPICS,
        make_producer=make_producer or (lambda told: FakeProducer(log, on_delivery=told)),
        log_ends=FakeAdmin(log),
        open_reader=lambda: FakeReader(log),
        settings=settings,
        clock=clock,
    )


def send(producer: SpoolingProducer, numbers: range) -> None:
    for number in numbers:
        producer.send("trades", [b"k%d" % (number % 7)], [b"%06d" % number])


def run(producer: SpoolingProducer) -> None:
    for _ in range(STEPS_MAX):
        try:
            producer.step()
        except UnavailableError:
            continue
        if not producer.waiting:
            return
    raise AssertionError(f"{producer.waiting} messages are left")


def in_log(log: FakeLog) -> dict[bytes | None, list[bytes | None]]:
    found: dict[bytes | None, list[bytes | None]] = {}
    for message in log.messages("trades"):
        found.setdefault(message.key, []).append(message.value)
    return found


def expected(numbers: range) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for number in numbers:
        found.setdefault(b"k%d" % (number % 7), []).append(b"%06d" % number)
    return found


def test_messages_reach_the_log_in_their_order(log: FakeLog, tmp_path: Path) -> None:
    producer = producer_of(log, tmp_path)
    send(producer, range(200))

    run(producer)

    assert in_log(log) == expected(range(200))
    assert producer.acknowledged == 200
    producer.close()


def test_sending_does_not_wait_for_a_broker_that_is_away(log: FakeLog, tmp_path: Path) -> None:
    producer = producer_of(log, tmp_path)
    send(producer, range(10))
    run(producer)
    log.is_up = False
    send(producer, range(10, 100))
    with pytest.raises(UnavailableError):
        producer.step()
    assert producer.waiting == 90
    log.is_up = True

    run(producer)

    assert in_log(log) == expected(range(100))
    producer.close()


class DiesAfterSending(FakeProducer):
    """The log takes what is sent, and the process hears nothing of it any more."""

    def flush(self, _timeout_seconds: float) -> None:
        raise RuntimeError("killed")


def test_what_the_log_took_before_the_process_was_killed_is_not_sent_again(log: FakeLog, tmp_path: Path) -> None:
    killed = producer_of(log, tmp_path, lambda told: DiesAfterSending(log, on_delivery=told))
    send(killed, range(30))
    with pytest.raises(RuntimeError, match="killed"):
        run(killed)
    assert 0 < len(log.messages("trades")) <= 30
    killed._spool.close()

    again = producer_of(log, tmp_path)
    send(again, range(30, 60))
    run(again)

    assert in_log(log) == expected(range(60))
    again.close()


class Flaky(FakeProducer):
    """Takes some of a batch now and then, and fails."""

    def __init__(self, log: FakeLog, draw: random.Random, told) -> None:
        super().__init__(log, on_delivery=told)
        self._draw = draw

    def send(self, topic, keys, values, **_headers) -> None:
        taken = len(values) if self._draw.random() < 0.8 else self._draw.randrange(len(values) + 1)
        super().send(topic, keys[:taken], values[:taken])
        if taken < len(values):
            raise UnavailableError("the broker went away", dependency="kafka")

    def flush(self, _timeout_seconds: float) -> None:
        if self._draw.random() < 0.1:
            raise UnavailableError("the broker went away", dependency="kafka")


@pytest.mark.parametrize("seed", range(20))
def test_every_message_is_in_the_log_once_and_in_order_whatever_fails(log: FakeLog, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    sent = 0
    for _ in range(6):
        producer = producer_of(log, tmp_path, lambda told: Flaky(log, draw, told))
        for _ in range(draw.randrange(1, 30)):
            count = draw.randrange(1, 20)
            keys = [b"k%d" % (number % 7) for number in range(sent, sent + count)]
            producer.send("trades", keys, [b"%06d" % number for number in range(sent, sent + count)])
            sent += count
            if draw.random() < 0.7:
                try:
                    producer.step()
                except K2Error:
                    continue
        producer._spool.close()  # as a kill would leave it

    producer = producer_of(log, tmp_path)
    run(producer)

    assert in_log(log) == expected(range(sent))
    producer.close()


class Ordered(FakeProducer):
    """Notes what is done in which order; takes a while to acknowledge."""

    def __init__(self, log: FakeLog, told) -> None:
        super().__init__(log, on_delivery=told)
        self.done: list[str] = []
        self.impatience = 2

    def send(self, topic, keys, values, **_headers) -> None:
        self.done.append(topic)
        super().send(topic, keys, values)

    def flush(self, _timeout_seconds: float) -> None:
        if self.impatience:
            self.impatience -= 1
            raise NotYetAcknowledgedError("not yet", dependency="kafka")
        self.done.append("flushed")


def test_what_follows_a_flush_is_sent_once_all_before_it_is_acknowledged(log: FakeLog, tmp_path: Path) -> None:
    made: list[Ordered] = []

    def make(told) -> Ordered:
        made.append(Ordered(log, told))
        return made[-1]

    producer = producer_of(log, tmp_path, make)
    producer.send("trades", [b"k"], [b"a"])
    producer.send("trades", [b"k"], [b"b"])
    producer.flush(0)
    producer.send("status", [b"k"], [b"end"])

    run(producer)

    assert made[0].done == ["trades", "trades", "flushed", "status", "flushed"]
    producer.close()


def test_no_more_is_on_its_way_than_allowed(log: FakeLog, tmp_path: Path) -> None:
    made: list[Ordered] = []

    def make(told) -> Ordered:
        made.append(Ordered(log, told))
        return made[-1]

    producer = producer_of(log, tmp_path, make)
    send(producer, range(120))

    run(producer)

    assert made[0].done == [*["trades"] * 50, "flushed", *["trades"] * 50, "flushed", *["trades"] * 20, "flushed"]
    producer.close()


def test_a_message_that_the_log_refuses_is_told_to_who_sends_next(log: FakeLog, tmp_path: Path) -> None:
    class Refusing(FakeProducer):
        def send(self, *_arguments, **_named) -> None:
            raise RecordError("expected messages of at most 5 bytes")

    producer = producer_of(log, tmp_path, lambda _: Refusing(log))
    send(producer, range(1))
    producer.start()
    producer._thread.join(10)

    with pytest.raises(RecordError, match="at most 5 bytes"):
        send(producer, range(1, 2))

    assert producer.drain(60) == 1
    producer.close()


def test_messages_with_headers_or_for_other_topics_are_refused(log: FakeLog, tmp_path: Path) -> None:
    producer = producer_of(log, tmp_path)

    with pytest.raises(ConfigurationError, match="some with headers"):
        producer.send("trades", [b"k"], [b"v"], headers=[{}])
    with pytest.raises(ConfigurationError, match="found quotes"):
        producer.send("quotes", [b"k"], [b"v"])

    producer.close()


def test_a_thread_of_its_own_sends_what_comes(log: FakeLog, tmp_path: Path) -> None:
    producer = producer_of(log, tmp_path)
    producer.start()

    send(producer, range(50))
    for _ in range(1_000_000):
        if not producer.waiting:
            break
    producer.close()

    assert in_log(log) == expected(range(50))
