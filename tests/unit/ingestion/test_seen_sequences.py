"""Which sequences were seen, against plain sets of numbers."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from k2.ingestion.duplicates.seen_sequences import Numbered, SeenSequences

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
STREAMS = [("A", None), ("A", "c1"), ("B", None)]
BATCHES = st.lists(st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(0, 30)), max_size=25), max_size=6)


def rows(messages: list[tuple[tuple[str, str | None], int]], at: datetime = BEGIN) -> Numbered:
    frame = pl.DataFrame(
        {
            "exchange": ["sim"] * len(messages),
            "channel": [channel for (_, channel), _ in messages],
            "trading_date": [date(2026, 3, 2)] * len(messages),
            "symbol": [symbol for (symbol, _), _ in messages],
            "sequence": [number for _, number in messages],
            "ts_log": [at] * len(messages),
        },
        schema={
            "exchange": pl.String, "channel": pl.String, "trading_date": pl.Date, "symbol": pl.String,
            "sequence": pl.Int64, "ts_log": pl.Datetime("us", "UTC"),
        },
    )  # fmt: skip
    return Numbered(frame)


@given(BATCHES)
def test_a_number_is_suspect_where_its_stream_has_had_it_and_only_there(
    batches: list[list[tuple[tuple[str, str | None], int]]],
) -> None:
    seen, model = SeenSequences(intervals_max=1_000), set[tuple[tuple[str, str | None], int]]()

    for batch in batches:
        suspects = seen.suspects(rows(batch)).tolist()

        assert suspects == [message in model for message in batch]
        seen.add(rows(batch))
        model.update(batch)


@given(st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(0, 30)), max_size=25))
def test_rows_in_which_a_number_repeats_are_never_taken_for_rows_that_climb(
    batch: list[tuple[tuple[str, str | None], int]],
) -> None:
    repeats = rows(batch).repeats

    assert repeats or len(set(batch)) == len(batch)


def test_rows_that_climb_with_holes_hold_no_number_twice() -> None:
    assert not rows([(STREAMS[0], 1), (STREAMS[1], 1), (STREAMS[0], 5), (STREAMS[1], 2)]).repeats


def test_a_run_with_a_repeated_number_leaves_no_room_for_one_that_never_came() -> None:
    seen = SeenSequences(intervals_max=1_000)

    seen.add(rows([(STREAMS[0], 1), (STREAMS[0], 1), (STREAMS[0], 3)]))

    assert seen.suspects(rows([(STREAMS[0], 2)])).tolist() == [False]


def test_streams_without_a_new_number_are_forgotten_be_they_in_order_or_not() -> None:
    seen = SeenSequences(intervals_max=1_000)
    seen.add(rows([(STREAMS[0], 1), (STREAMS[0], 2), (STREAMS[1], 5), (STREAMS[1], 3)]))
    seen.add(rows([(STREAMS[2], 9), (STREAMS[2], 4)], BEGIN + timedelta(hours=2)))

    seen.forget(BEGIN + timedelta(hours=1))

    assert seen.streams == 1
    assert seen.suspects(rows([(STREAMS[0], 2), (STREAMS[2], 4)])).tolist() == [False, True]
