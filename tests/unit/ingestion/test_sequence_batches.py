"""A whole batch says what its messages say one by one, wherever it is cut."""

from __future__ import annotations

import datetime as dt
import itertools

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.ingestion.sequences.batches import COLUMNS, Memory, observe, remembered
from k2.ingestion.sequences.rules import Message, SequenceKind, SequenceRules, decide, settle

RULES = SequenceRules(
    reorder_messages=4,
    reorder_us=40_000,
    lost_us=400_000,
    memory_us=900_000,
    memory_offsets=60,
    holes_max=3,
    reset_number_max=2,
    reset_distance_min=6,
)
DAY = dt.date(2026, 1, 5)

steps = st.lists(
    st.tuples(
        st.sampled_from(["A", "B"]),
        st.sampled_from([1, 1, 1, 1, 1, 2, 4, 0, -1, -2, -5, -30, None]),
        st.sampled_from([None, None, None, 0, 1]),
        st.sampled_from([0, 0, 0, 0, 1, -1]),
        st.sampled_from([1, 1, 1, 5, -3, 30, 300, 1000]),
        st.sampled_from([1, 1, 1, 2, 50]),
    ),
    max_size=60,
)


def frame(drawn) -> pl.DataFrame:
    numbers, days, rows = {"A": 10, "B": 10}, {"A": 0, "B": 0}, []
    millisecond, offset = 0, 0
    for symbol, step, sub_index, day, pause, hop in drawn:
        numbers[symbol] = max(1, numbers[symbol] + (step or 0))
        days[symbol] = max(0, days[symbol] + day)
        millisecond, offset = max(0, millisecond + pause), offset + hop
        logged = dt.datetime(2026, 1, 5, tzinfo=dt.UTC) + dt.timedelta(milliseconds=millisecond)
        number = None if step is None else numbers[symbol]
        date = DAY + dt.timedelta(days=days[symbol])
        rows.append((symbol, None, number, sub_index, date, millisecond * 1_000_000, logged, offset))
    schema = {
        "symbol": pl.String, "channel": pl.String, "sequence": pl.Int64, "sub_index": pl.Int32,
        "trading_date": pl.Date, "ts_event_ns": pl.Int64, "ts_log": pl.Datetime("us", "UTC"), "log_offset": pl.Int64,
    }  # fmt: skip
    assert tuple(schema) == COLUMNS
    return pl.DataFrame(rows, schema=schema, orient="row")


def one_by_one(rows: pl.DataFrame):
    states, events, changes, clock = {}, [], [], 0
    for symbol, _, number, sub_index, date, event_ns, logged, offset in rows.rows():
        clock = max(clock, (logged - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1))
        day = (date - dt.date(1970, 1, 1)).days
        if number is not None:
            found = []
            message = Message(number, clock, day, -1 if sub_index is None else sub_index, 0, offset, event_ns)
            states[symbol], decision = decide(states.get(symbol), message, RULES, found)
            changes += [(symbol, change) for change in found]
            if decision.kind is not SequenceKind.NORMAL:
                events.append((symbol, offset, number, decision))
        for name, state in states.items():
            found = []
            settle(state, time_us=clock, offset=offset, rules=RULES, changes=found)
            changes += [(name, change) for change in found]
    settle_all(states, clock, rows)
    return states, events, changes


def settle_all(states, clock, rows) -> None:
    """Drop what both ways have forgotten, or will have at their next message."""
    for state in states.values():
        settle(state, time_us=clock, offset=rows["log_offset"][-1], rules=RULES, changes=[])


def in_batches(rows: pl.DataFrame, cuts: list[int]):
    memory, events, changes = Memory(), [], []
    edges = [0, *sorted(cut for cut in set(cuts) if cut < rows.height), rows.height]
    for start, end in itertools.pairwise(edges):
        part = rows[start:end]
        end_offset = (part["log_offset"].max() or -1) + 1
        seen = observe(memory, part, RULES, scope="symbol", partition=0, end_offset=end_offset)
        memory = remembered(memory, seen)
        events += seen.events
        changes += seen.changes
    settle_all(memory.streams, memory.clock_us, rows)
    return dict(memory.streams), [tuple(event) for event in events], [tuple(change) for change in changes]


@settings(max_examples=250)
@given(steps, st.lists(st.integers(1, 60), max_size=5))
def test_a_batch_says_what_its_messages_say_one_by_one_wherever_it_is_cut(drawn, cuts):
    rows = frame(drawn)

    states, events, changes = in_batches(rows, cuts)

    expected_states, expected_events, expected_changes = one_by_one(rows)
    assert sorted(events, key=lambda event: event[1]) == expected_events
    assert states == expected_states
    assert sorted(changes, key=repr) == sorted(expected_changes, key=repr)


def test_a_batch_in_order_makes_no_event_and_moves_the_state_to_its_end():
    rows = frame([("A", 1, None, 0, 1, 1)] * 50)

    seen = observe(Memory(), rows, RULES, scope="symbol", partition=0, end_offset=51)

    assert (seen.events, seen.changes, seen.messages) == ([], [], 50)
    assert (seen.states["A"].last, seen.states["A"].messages) == (60, 50)


def test_an_observation_leaves_the_memory_as_it_was():
    memory = remembered(
        Memory(), observe(Memory(), frame([("A", 1, None, 0, 1, 1)]), RULES, scope="symbol", partition=0, end_offset=2)
    )
    before = memory.streams["A"].copy()
    rows = frame([("A", 1, None, 0, 1, 1)] * 9)[1:]

    observe(memory, rows, RULES, scope="symbol", partition=0, end_offset=10)

    assert memory.streams["A"] == before


def test_records_without_a_number_are_no_messages_but_move_the_clock():
    seen = observe(Memory(), frame([("A", None, None, 0, 5, 1)]), RULES, scope="symbol", partition=0, end_offset=2)

    assert (seen.messages, seen.states) == (0, {})
    assert seen.clock_us > 0


def test_channels_tell_streams_apart_where_the_venue_numbers_them():
    rows = frame([("A", 1, None, 0, 1, 1), ("B", 2, None, 0, 1, 1)]).with_columns(channel=pl.lit("c1"))

    seen = observe(Memory(), rows, RULES, scope="channel", partition=0, end_offset=3)

    assert (list(seen.states), seen.states["c1"].last) == (["c1"], 12)


def test_a_late_message_fills_a_hole_of_its_own_trading_date_and_of_no_other():
    late_by_two_days = [(1, 0), (3, 0), (1, 1), (2, 1), (3, 1), (1, 2), (2, 1)]
    late_by_a_day = [(1, 0), (2, 0), (1, 1), (3, 1), (1, 2), (2, 1)]

    filled = [filled_after(messages) for messages in (late_by_two_days, late_by_a_day)]

    assert filled == [[], [(2, 1)]]


def filled_after(messages: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the numbers that were filled, with the trading date before the hole; every hole is opened at once."""
    state, changes = None, []
    for offset, (number, day) in enumerate(messages):
        message = Message(number, offset, day, offset=offset)
        state, _ = decide(state, message, SequenceRules(reorder_messages=0), changes)
    return [(change.first, change.hole.from_day) for change in changes if change.event == "filled"]
