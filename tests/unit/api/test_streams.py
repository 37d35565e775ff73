"""What a stream sends, where it goes on after a cut, and what a slow reader gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.problems import HttpProblemError
from k2.api.settings import ApiSettings
from k2.api.streams.events import Event
from k2.api.streams.hub import LiveHub
from k2.api.streams.reader import StreamReader, resumed, subject
from k2.api.streams.subscription import StreamRequest
from k2.common.clock import SystemClock
from k2.common.errors import OverloadedError, QueryError, UnavailableError
from k2.testing.fake_engine import FakeEngine
from k2.testing.market_rows import START_NS, market_rows


class Streams:
    """A hub that looks when told to, over rows that are added to."""

    def __init__(self, **settings: Any) -> None:
        self.engine = FakeEngine({"trades": market_rows(range(30), symbols=("AAA", "BBB"))})
        self.settings = ApiSettings(**settings)
        self.hub = LiveHub(self.engine, self.settings, SystemClock(), threaded=False)
        self.stack = ExitStack()

    def add(self, count: int) -> None:
        held = self.engine.rows["trades"]
        more = market_rows(range(held.height, held.height + count), symbols=("AAA", "BBB"))
        self.engine.rows["trades"] = pl.concat([held, more])
        self.hub.step()

    def open(
        self, *symbols: str, start_ns: int | None = None, cursor: str | None = None, **fields: Any
    ) -> StreamReader:
        request = StreamRequest(data_type="trades", symbols=symbols or ("AAA",), start_ns=start_ns, **fields)
        position = resumed(request, cursor) if cursor else self.hub.begin(request, with_history=start_ns is not None)
        subscription = self.stack.enter_context(self.hub.subscribed(request, "key", lambda: None))
        return StreamReader(
            request, position, engine=self.engine, hub=self.hub, subscription=subscription, settings=self.settings
        )


@pytest.fixture
def streams() -> Iterator[Streams]:
    made = Streams()
    yield made
    made.stack.close()


def read(reader: StreamReader) -> list[Event]:
    """Return all that a reader can have now."""
    events: list[Event] = []
    while True:
        if reader.needs_page:
            reader.page()
            events += reader.ready()
        else:
            more = reader.drain()
            events += more
            if not more and not reader.needs_page:
                return events


def offsets(events: list[Event]) -> list[int]:
    return [row["log_offset"] for event in events if event.name == "rows" for row in json.loads(event.data)]


def test_history_comes_first_and_in_order_then_what_is_new(streams: Streams) -> None:
    reader = streams.open(start_ns=0)

    history = read(reader)
    streams.add(4)
    live = read(reader)

    assert offsets(history) == list(range(0, 30, 2))
    assert offsets(live) == [30, 32]


def test_a_stream_from_the_newest_record_on_has_no_history(streams: Streams) -> None:
    reader = streams.open()

    before = read(reader)
    streams.add(2)

    assert before == []
    assert offsets(read(reader)) == [30]


def test_the_rows_are_written_as_an_answer_writes_them(streams: Streams) -> None:
    app = create_app(streams.engine, key=ApiKey("key"), settings=streams.settings, clock=SystemClock(), unready=list)
    answered = (
        TestClient(app, headers={"X-API-Key": "key"})
        .get("/v1/trades", params={"symbol": "AAA", "start": "0"})
        .json()["data"]
    )

    history = [row for event in read(streams.open(start_ns=0)) for row in json.loads(event.data)]

    assert history == answered
    assert isinstance(history[0]["price"], str)


def test_a_live_row_is_written_as_a_row_of_history_but_for_its_commit(streams: Streams) -> None:
    reader = streams.open()
    read(reader)
    streams.add(2)

    [live] = json.loads(read(reader)[0].data)
    [later] = [
        row for event in read(streams.open(start_ns=0)) for row in json.loads(event.data) if row["log_offset"] == 30
    ]

    assert (live["commit_sequence"], live["written_by"]) == (None, None)
    assert live == {**later, "commit_sequence": None, "written_by": None}


@pytest.mark.parametrize("symbols", [("AAA",), ("AAA", "BBB")])
def test_the_id_of_any_event_goes_on_right_behind_it(symbols: tuple[str, ...]) -> None:
    streams = Streams(stream_page_rows=4, stream_event_rows_max=3)
    reader = streams.open(*symbols, start_ns=0)
    events = read(reader)
    for _ in range(3):
        streams.add(2)
        events += read(reader)
    whole = offsets(events)

    for number in range(len(events)):
        rest = read(streams.open(*symbols, cursor=events[number].cursor))

        assert offsets(events[: number + 1]) + offsets(rest) == whole
    assert len(events) > 8
    assert whole == [offset for offset in range(36) if len(symbols) == 2 or offset % 2 == 0]
    streams.stack.close()


def test_a_time_to_begin_at_holds_for_late_events_as_well(streams: Streams) -> None:
    reader = streams.open(start_ns=START_NS + 28_000_000)
    read(reader)
    late = market_rows([30, 32], symbols=("AAA",)).with_columns(ts_event_ns=pl.lit(START_NS, pl.Int64))
    streams.engine.rows["trades"] = pl.concat(
        [streams.engine.rows["trades"], late[:1], market_rows([31], symbols=("AAA",))]
    )
    streams.hub.step()

    assert offsets(read(reader)) == [31]


def test_a_stream_goes_on_behind_the_token_of_an_answer(streams: Streams) -> None:
    request = StreamRequest(data_type="trades", symbols=("AAA",))
    token = streams.engine.live("trades")
    token.jump()
    prefix = token.prefix(None)
    streams.add(4)

    position = streams.hub.begin(request, with_history=False, since=prefix)
    reader = streams.open(cursor=position.to_text(subject(request)))

    assert offsets(read(reader)) == [30, 32]


def test_a_reader_that_waits_too_long_reads_the_rest_from_the_engine() -> None:
    streams = Streams(stream_buffer_rows_max=3)
    reader = streams.open()
    read(reader)
    streams.engine.asked.clear()

    for _ in range(10):
        streams.add(2)

    assert offsets(read(reader)) == list(range(30, 50, 2))
    assert len(streams.engine.asked) == 1
    streams.stack.close()


def test_a_reader_that_would_rather_drop_is_told_what_was_left_out_and_can_have_it_later() -> None:
    streams = Streams(stream_buffer_rows_max=3)
    reader = streams.open(on_slow="drop")
    read(reader)

    for _ in range(6):
        streams.add(2)
    events = read(reader)

    left_out = json.loads(events[0].data)
    assert [event.name for event in events] == ["left_out", "rows", "rows"]
    assert left_out["rows"] == 4
    assert left_out["ranges"] == [{"log_id": 0, "log_partition": 0, "start": 30, "end": 38}]
    assert offsets(events) == [38, 40]
    assert offsets(read(streams.open(cursor=left_out["cursor"]))) == [30, 32, 34, 36, 38, 40]
    assert offsets(read(streams.open(cursor=events[0].cursor))) == [38, 40]
    streams.stack.close()


def test_a_reader_that_would_rather_be_ended_goes_on_with_its_last_event() -> None:
    streams = Streams(stream_buffer_rows_max=1)
    reader = streams.open(on_slow="disconnect")
    read(reader)
    streams.add(2)
    first = read(reader)

    streams.add(2)
    streams.add(2)

    with pytest.raises(OverloadedError, match="on_slow=disconnect"):
        reader.drain()
    assert offsets(read(streams.open(cursor=first[-1].cursor))) == [32, 34]
    streams.stack.close()


def test_much_that_comes_while_history_is_read_is_not_dropped() -> None:
    streams = Streams(stream_buffer_rows_max=3, stream_page_rows=4)
    reader = streams.open(start_ns=0, on_slow="drop")
    reader.page()
    events = reader.ready()

    for _ in range(6):
        streams.add(2)

    assert offsets(events + read(reader)) == list(range(0, 42, 2))
    streams.stack.close()


def test_a_page_that_nobody_waited_for_is_sent_all_the_same(streams: Streams) -> None:
    reader = streams.open(start_ns=0)

    reader.page()
    cursor = reader.cursor
    reader.page()

    assert offsets(reader.ready()) == list(range(0, 30, 2))
    assert resumed(reader.request, cursor).since is None


def test_a_question_that_fails_is_asked_again_at_the_same_place(streams: Streams) -> None:
    reader = streams.open(start_ns=0)
    streams.engine.fails_with = UnavailableError("down", dependency="catalog")
    with pytest.raises(UnavailableError):
        reader.page()

    streams.engine.fails_with = None

    assert offsets(read(reader)) == list(range(0, 30, 2))


def test_a_stream_that_is_ahead_of_a_tail_that_has_just_begun_waits_for_it(streams: Streams) -> None:
    whole, cursor = streams.engine.rows["trades"], streams.open().cursor
    streams.engine.rows["trades"] = whole.head(20)
    streams.engine.followers.clear()
    streams.hub = LiveHub(streams.engine, streams.settings, SystemClock(), threaded=False)
    reader = streams.open(cursor=cursor)
    with pytest.raises(UnavailableError, match="found it behind"):
        reader.page()

    streams.engine.rows["trades"] = whole
    streams.add(2)

    assert offsets(read(reader)) == [30]


def test_a_cursor_that_was_damaged_or_is_of_another_stream_is_refused(streams: Streams) -> None:
    cursor = streams.open(start_ns=0).cursor

    for at in range(0, len(cursor), 7):
        damaged = cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]
        with pytest.raises(QueryError, match="found"):
            streams.open(cursor=damaged)
    with pytest.raises(QueryError, match="one of another"):
        streams.open("BBB", cursor=cursor)


def test_streams_are_limited_in_all_and_for_each_key() -> None:
    streams = Streams(streams_max=3, key_streams_max=2)
    request = StreamRequest(data_type="trades", symbols=("AAA",))
    for key in ("a", "a", "b"):
        last = streams.stack.enter_context(ExitStack())
        last.enter_context(streams.hub.subscribed(request, key, lambda: None))

    with (
        pytest.raises(OverloadedError, match="K2_API__STREAMS_MAX"),
        streams.hub.subscribed(request, "b", lambda: None),
    ):
        pass
    last.close()
    with (
        pytest.raises(HttpProblemError, match="K2_API__KEY_STREAMS_MAX"),
        streams.hub.subscribed(request, "a", lambda: None),
    ):
        pass
    with streams.hub.subscribed(request, "b", lambda: None):
        assert streams.hub.streams == 3
    streams.stack.close()
