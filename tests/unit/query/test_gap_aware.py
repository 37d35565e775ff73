"""Answers that know their gaps: which count, what each choice does, and that a token knows what it knew."""

from __future__ import annotations

import datetime as dt

import pytest

from k2.common.errors import QueryError, UnavailableError
from k2.query.gap_aware import GapAwareEngine
from k2.query.request import QueryRequest
from k2.testing.fake_gaps import FakeGaps
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.simulated_hybrid import ASX, SIM, SimulatedHybrid, home
from k2.testing.simulated_messages import TradeFields

DAY = 86_400_000_000_000
FIRST = dt.date(2026, 1, 1)


class World:
    def __init__(self, hybrid: SimulatedHybrid) -> None:
        self.hybrid = hybrid
        self.gaps = FakeGaps()
        self.engine = GapAwareEngine(
            hybrid.engine, events=self.gaps, table=self.gaps, watched={"trades": frozenset({"asx"})}, listed_max=2
        )
        self.partition = home(hybrid, "BHP")

    def trades(self, *times: int, topic=ASX) -> None:
        for time in times:
            trade = TradeFields(day=time // DAY, trade_id=str(time))
            self.hybrid.market.append(topic.name, "BHP", time, trade=trade)

    def commit(self, records: int | None = None) -> None:
        self.hybrid.market.commit(ASX.name, self.partition, records)

    def know(self, *changed: dict) -> None:
        dates = {"trading_date": FIRST, "trading_date_to": FIRST}
        base = {"log_partition": self.partition, "decided_offset": 0, **dates}
        self.gaps.events = gap_events(*(gap_event(**{**base, **each}) for each in changed))

    def ask(self, **fields):
        return self.engine.query(QueryRequest(**{"data_type": "trades", "symbol": "BHP", **fields}))


@pytest.fixture
def world(hybrid: SimulatedHybrid) -> World:
    made = World(hybrid)
    made.trades(100, 200, DAY + 5, DAY + 6)
    made.commit(3)
    return made


def test_the_certificate_counts_and_names_gaps_that_lack_numbers(world: World) -> None:
    world.know({}, {"event": "filled", "first": 12, "last": 12, "event_offset": 9})

    certificate = world.ask().certificate

    assert certificate.gap_count == 1
    assert (certificate.gaps[0]["missing"], certificate.gaps[0]["state"]) == (4, "open")
    assert certificate.from_json(certificate.to_json()) == certificate


@pytest.mark.parametrize(
    ("event", "fields", "count"),
    [
        ({}, {"start_ns": 200, "end_ns": 201}, 1),
        ({}, {"start_ns": 201, "end_ns": 900}, 0),
        ({}, {"start_ns": 0, "end_ns": 100}, 0),
        ({}, {"start_ns": 0, "end_ns": 101}, 1),
        ({"symbol": "CBA"}, {}, 0),
        ({"symbol": None, "channel": "c1"}, {}, 1),
        ({"data_type": "quotes"}, {}, 0),
        ({"exchange": "sim"}, {}, 0),
        ({"decided_offset": 3}, {}, 0),
        ({"log_partition": 7}, {}, 0),
    ],
)
def test_a_gap_counts_where_it_overlaps_what_was_asked_and_known(world: World, event, fields, count) -> None:
    world.know(event)

    assert world.ask(**fields).certificate.gap_count == count


def test_a_gap_that_was_filled_is_none(world: World) -> None:
    world.know({}, {"event": "filled", "first": 10, "last": 14, "event_offset": 9})

    assert world.ask(gaps="fail").certificate.gap_count == 0


def test_more_gaps_are_counted_than_are_named(world: World) -> None:
    world.know(*({"gap_first": n, "gap_last": n, "first": n, "last": n} for n in (10, 20, 30)))

    certificate = world.ask().certificate

    assert (certificate.gap_count, len(certificate.gaps)) == (3, 2)


def test_numbers_that_nobody_watches_have_unknown_gaps(world: World) -> None:
    assert world.ask(exchange="sim").certificate.gap_count is None
    with pytest.raises(QueryError, match="watched"):
        world.ask(exchange="sim", gaps="fail")


def test_fail_names_the_gaps(world: World) -> None:
    world.know({})

    with pytest.raises(QueryError, match=r"asx BHP 10-14 \(5 missing\).*gaps=annotate"):
        world.ask(gaps="fail")


def test_exclude_leaves_out_the_sessions_that_lack_something(world: World) -> None:
    world.trades(101, topic=SIM)
    world.know({})

    answer = world.ask(gaps="exclude", columns=("price", "ts_event_ns"))

    certificate = answer.certificate
    assert answer.table.column_names == ["price", "ts_event_ns"]
    assert answer.table["ts_event_ns"].to_pylist() == [101, DAY + 5, DAY + 6]
    assert (certificate.rows, certificate.rows_excluded, certificate.gap_count) == (3, 2, 1)
    assert (certificate.rows_from_table, certificate.rows_from_log) == (1, 2)


def test_exclude_without_gaps_leaves_everything(world: World) -> None:
    assert world.ask(gaps="exclude").certificate.rows_excluded == 0
    assert world.ask(gaps="exclude", start_ns=5 * DAY).table.num_rows == 0


def test_a_session_over_midnight_is_left_out_as_a_whole(world: World) -> None:
    world.know({"trading_date_to": FIRST + dt.timedelta(days=1)})

    assert world.ask(gaps="exclude").table.num_rows == 0


def test_without_dates_the_time_of_the_gap_is_left_out(world: World) -> None:
    world.know({"trading_date": None, "trading_date_to": None, "from_ns": 200, "to_ns": DAY + 5})

    assert world.ask(gaps="exclude").table["ts_event_ns"].to_pylist() == [100, DAY + 6]


def test_pages_of_complete_sessions_add_up(world: World) -> None:
    world.know({})
    rows, answer = [], None
    while answer is None or answer.next_after:
        more = {} if answer is None else {"after": answer.next_after, "as_of": answer.certificate.as_of}
        answer = world.ask(gaps="exclude", limit=1, **more)
        rows += answer.table["ts_event_ns"].to_pylist()

    assert rows == [DAY + 5, DAY + 6]


def test_a_token_knows_the_gaps_that_it_knew(world: World) -> None:
    before = world.ask(gaps="exclude")
    world.commit()
    world.know({"decided_offset": 3})

    again = world.ask(gaps="exclude", as_of=before.certificate.as_of)
    now = world.ask(gaps="exclude")

    assert again.table["log_offset"].equals(before.table["log_offset"])
    assert again.table.num_rows == 4
    assert (again.certificate.gap_count, now.certificate.gap_count) == (0, 1)


def test_a_token_from_before_a_replay_knows_the_gap_that_it_filled(world: World) -> None:
    known = world.ask().certificate.commit_sequence
    world.know({}, {"event": "filled", "event_offset": 9, "commit_sequence": known + 1})
    before = world.ask()
    world.commit()

    again = world.ask(as_of=before.certificate.as_of)
    now = world.ask()

    assert [each.certificate.gap_count for each in (before, again, now)] == [1, 1, 0]


def test_a_number_that_came_later_was_missing_then(world: World) -> None:
    logged = dt.datetime(2023, 1, 1, tzinfo=dt.UTC)
    filled = {"event": "filled", "event_offset": 9, "ts_event_log": logged + dt.timedelta(seconds=1)}
    world.know({"ts_event_log": logged}, filled)
    then = int(logged.timestamp()) * 10**9

    asked = [None, then + 1, then]

    assert [world.ask(known_at_ns=at).certificate.gap_count for at in asked] == [0, 1, 0]


def test_gaps_that_cannot_be_read_are_unknown_and_never_none(world: World) -> None:
    world.gaps.fails_with = UnavailableError("the catalog is down", dependency="catalog")

    assert world.ask().certificate.gap_count is None
    with pytest.raises(UnavailableError):
        world.ask(gaps="fail")


def test_an_engine_that_reads_no_gaps_refuses_to_leave_any_out(hybrid: SimulatedHybrid) -> None:
    with pytest.raises(QueryError, match="reads no table of gaps"):
        hybrid.engine.query(QueryRequest(data_type="trades", symbol="BHP", gaps="exclude"))
