"""The deduplicator by id: what it calls a duplicate, for how long, and what it costs."""

from __future__ import annotations

import random

import polars as pl
import pytest

from k2.ingestion.bloom_deduplicator import ProductionDeduplicator, create_deduplicator
from k2.ingestion.duplicates.confirm_store import Sighting
from k2.testing.fake_confirm_store import FakeConfirmStore

HOUR_MS = 3_600_000
START_MS = 1_800_000_000_000


@pytest.fixture
def store():
    return FakeConfirmStore()


def deduplicator(store, **options):
    return ProductionDeduplicator(None, **{"capacity": 50_000, "store": store, **options})


def beside_a_table(store, table):
    """Return one that has been there since before the table held anything."""
    return create_deduplicator(
        None, capacity=50_000, store=store, confirm=lambda ids: [table.get(each) for each in ids], stored=()
    )


def test_the_first_sighting_is_new_and_the_second_a_duplicate(store):
    seen = deduplicator(store)

    answers = [seen.is_duplicate("T-1"), seen.is_duplicate("T-1"), seen.is_duplicate("T-2")]

    assert answers == [False, True, False]


def test_of_equal_ids_in_one_batch_the_first_is_new(store):
    seen = deduplicator(store)

    answers = seen.is_duplicate_batch(["a", "b", "a", "a", "c", "b"])

    assert answers == [False, False, True, True, False, True]


def test_the_same_coordinate_again_is_a_replay(store):
    seen = deduplicator(store)
    seen.is_duplicate("T-1", offset=0)

    again, moved = seen.is_duplicate("T-1", offset=0), seen.is_duplicate("T-1", offset=9)

    assert (again, moved) == (False, True)


def test_the_same_coordinate_twice_in_a_batch_is_a_replay(store):
    seen = deduplicator(store)

    answers = seen.is_duplicate_batch(["a", "a", "a"], offsets=[4, 4, 5])

    assert answers == [False, False, True]


def test_new_ids_cost_no_read(store):
    seen = deduplicator(store)
    seen.is_duplicate_batch(range(10_000))

    stats = seen.get_stats()

    assert stats["total_checks"] == 10_000
    assert stats["redis_call_reduction"] > 0.99


@pytest.mark.parametrize("phase", [0, 1, 3 * HOUR_MS, 6 * HOUR_MS - 1])
def test_the_window_is_a_day_of_log_time_by_the_winners_time(store, phase):
    seen = deduplicator(store)
    at = START_MS + phase
    seen.is_duplicate("T-1", log_time_ms=at)
    for hour in range(1, 24):
        seen.is_duplicate(f"other-{hour}", log_time_ms=at + hour * HOUR_MS)

    still = seen.is_duplicate("T-1", log_time_ms=at + 24 * HOUR_MS)
    later = seen.is_duplicate("T-1", log_time_ms=at + 24 * HOUR_MS + 10)

    assert (still, later) == (True, False), "a duplicate does not prolong the window; past it the id is new"


def test_generations_past_the_window_leave_memory_and_store(store):
    seen = deduplicator(store)
    for hour in range(0, 24 * 4, 6):
        seen.is_duplicate(f"at-{hour}", log_time_ms=START_MS + hour * HOUR_MS)

    assert len(store.generations()) == 5
    assert seen.get_stats()["ids"] == 5


def test_ids_equal_a_plain_set_whatever_the_batches():
    drawn = random.Random(7)
    seen, known = deduplicator(FakeConfirmStore()), set()

    for _ in range(200):
        batch = [drawn.randrange(3_000) for _ in range(drawn.choice([1, 5, 200]))]
        answers = seen.is_duplicate_batch(batch)
        expected = []
        for number in batch:
            expected.append(number in known)
            known.add(number)
        assert answers == expected


def test_add_without_check_makes_the_next_sighting_a_duplicate(store):
    seen = deduplicator(store)
    seen.add_without_check("T-1")
    seen.add_without_check(["T-2", "T-3"], offsets=[5, 6])

    answers = seen.is_duplicate_batch(["T-1", "T-2", "T-4"])

    assert answers == [True, True, False]


def test_suspects_are_not_remembered(store):
    seen = deduplicator(store)
    seen.add_without_check("T-1")

    first, second = seen.suspects(["T-1", "T-2"]), seen.suspects(["T-1", "T-2"])

    assert first == second == [True, False]


def test_a_store_that_is_down_drops_nothing_and_asks_the_table(store):
    table = {"T-1": Sighting(START_MS, 1)}
    seen = beside_a_table(store, table)
    seen.is_duplicate_batch(["T-1", "T-2"], log_time_ms=START_MS)
    store.is_up = False

    answers = seen.is_duplicate_batch(["T-1", "T-2", "T-3"], log_time_ms=START_MS)

    assert answers == [True, False, False], "T-2 is in no table: the filter alone calls nothing a duplicate"


def test_a_store_that_is_down_and_no_table_lets_duplicates_pass(store):
    seen = deduplicator(store)
    seen.is_duplicate("T-1")
    store.is_up = False

    assert not seen.is_duplicate("T-1")


def test_a_store_that_was_emptied_is_noticed(store):
    table = {"T-1": Sighting(START_MS, 1)}
    seen = beside_a_table(store, table)
    seen.is_duplicate("T-1", log_time_ms=START_MS)
    store.flush()

    answers = [seen.is_duplicate("T-1", log_time_ms=START_MS + 1) for _ in range(2)]

    assert answers == [True, True]


def test_a_store_that_came_back_with_an_older_copy_is_noticed(store):
    table = {}
    seen = beside_a_table(store, table)
    seen.is_duplicate("T-1", log_time_ms=START_MS)
    saved = store.copy()
    seen.is_duplicate("T-2", log_time_ms=START_MS)
    table["T-2"] = Sighting(START_MS, 2)
    store.put_back(saved)

    answers = seen.is_duplicate_batch(["T-1", "T-2", "T-3"], log_time_ms=START_MS + 1)

    assert answers == [True, True, False]


def test_a_new_process_on_an_emptied_store_asks_the_table_about_every_id_for_a_window(store):
    table = {"T-1": Sighting(START_MS, 1), "T-2": Sighting(START_MS, 2)}
    store.attach()
    store.flush()
    seen = deduplicator(store, confirm=lambda ids: [table.get(each) for each in ids])

    known = seen.is_duplicate("T-1", log_time_ms=START_MS + 1)
    built = [seen.is_built]
    seen.is_duplicate("other", log_time_ms=START_MS + 25 * HOUR_MS)
    built.append(seen.is_built)

    assert (known, built) == (True, [False, True])


@pytest.mark.parametrize("is_up", [True, False])
def test_a_new_process_can_be_told_what_the_table_holds(store, is_up):
    table = {"T-1": Sighting(START_MS, 1)}
    asked = []
    store.is_up = is_up
    seen = create_deduplicator(
        None,
        capacity=50_000,
        store=store,
        confirm=lambda ids: [asked.append(each) or table.get(each) for each in ids],
        stored=[(["T-1"], [1], START_MS)],
    )
    store.is_up = True
    seen.rebuild()

    answers = seen.is_duplicate_batch(["T-1", "T-2"], log_time_ms=START_MS + 1)

    assert answers == [True, False]
    assert "T-2" not in asked


def test_what_could_not_be_stored_is_asked_of_the_table(store):
    table = {}
    seen = beside_a_table(store, table)
    store.is_up = False
    seen.is_duplicate("T-1", log_time_ms=START_MS)
    table["T-1"] = Sighting(START_MS, 1)
    store.is_up = True

    assert seen.is_duplicate("T-1", log_time_ms=START_MS)


def test_what_could_not_be_stored_is_stored_when_the_store_is_back(store):
    seen = deduplicator(store)
    store.is_up = False
    seen.is_duplicate_batch(["T-1", "T-2"], offsets=[1, 2], log_time_ms=START_MS)
    store.is_up = True
    seen.is_duplicate("T-3", offset=3, log_time_ms=START_MS)

    successor = create_deduplicator(None, capacity=50_000, store=store)

    assert successor.is_duplicate_batch(["T-1", "T-2", "T-4"], log_time_ms=START_MS + 1) == [True, True, False]


def test_no_more_is_kept_for_a_store_that_is_away_than_the_limit(store, monkeypatch):
    monkeypatch.setattr("k2.ingestion.bloom_deduplicator._OWED_IDS_MAX", 3)
    seen = deduplicator(store)
    store.is_up = False
    for number in range(5):
        seen.is_duplicate_batch([f"a-{number}", f"b-{number}"], log_time_ms=START_MS)
    store.is_up = True
    seen.is_duplicate("T-1", log_time_ms=START_MS)

    held = [each for generation in store.generations() for part in store.fingerprints(generation) for each in part]

    assert len(held) == 3


def test_a_generation_that_ends_while_the_store_is_away_leaves_it_later(store):
    seen = deduplicator(store)
    seen.is_duplicate("T-1", log_time_ms=START_MS)
    seen.is_duplicate("T-2", log_time_ms=START_MS + 24 * HOUR_MS)
    store.is_up = False
    seen.is_duplicate("T-3", log_time_ms=START_MS + 30 * HOUR_MS)
    store.is_up = True
    seen.is_duplicate("T-4", log_time_ms=START_MS + 36 * HOUR_MS)

    first = START_MS // (6 * HOUR_MS)

    assert store.generations() == (first + 4, first + 5, first + 6)


def test_a_restart_looks_everything_up_until_it_is_rebuilt(store):
    deduplicator(store).is_duplicate_batch(["T-1", "T-2"], log_time_ms=START_MS)
    again = deduplicator(store)

    before = again.suspects(["T-1", "T-9"], log_time_ms=START_MS)
    reads = again.get_stats()["redis_confirms"]
    again.rebuild()
    after = again.is_duplicate_batch(["T-1", "T-9"], log_time_ms=START_MS)

    assert (before, reads, after) == ([True, False], 2, [True, False])
    assert again.is_built


def test_closed_generations_are_read_back_from_disk(store, tmp_path):
    first = deduplicator(store, directory=tmp_path)
    first.is_duplicate("T-1", log_time_ms=START_MS)
    first.is_duplicate("T-2", log_time_ms=START_MS + 7 * HOUR_MS)

    again = deduplicator(store, directory=tmp_path)
    loaded = again.get_stats()["ids"]
    answers = again.is_duplicate_batch(["T-1", "T-2", "T-3"], log_time_ms=START_MS + 7 * HOUR_MS)

    assert (loaded, answers) == (1, [True, True, False])


def test_a_damaged_file_is_rebuilt_from_the_store(store, tmp_path):
    first = deduplicator(store, directory=tmp_path)
    first.is_duplicate("T-1", log_time_ms=START_MS)
    first.is_duplicate("T-2", log_time_ms=START_MS + 7 * HOUR_MS)
    for path in tmp_path.glob("*.bloom"):
        path.write_bytes(b"damaged")

    again = create_deduplicator(None, capacity=50_000, store=store, directory=tmp_path)

    assert again.is_duplicate_batch(["T-1", "T-2"], log_time_ms=START_MS + 7 * HOUR_MS) == [True, True]


def test_a_store_that_is_down_at_the_start_is_waited_for(store):
    deduplicator(store).is_duplicate("T-1", log_time_ms=START_MS)
    store.is_up = False
    again = create_deduplicator(None, capacity=50_000, store=store)
    store.is_up = True

    again.rebuild()

    assert again.is_duplicate("T-1", log_time_ms=START_MS)


def test_clear_forgets_everything(store, tmp_path):
    seen = deduplicator(store, directory=tmp_path)
    seen.is_duplicate("T-1", log_time_ms=START_MS)
    seen.is_duplicate("T-1", log_time_ms=START_MS + 7 * HOUR_MS)
    seen.clear()

    assert not seen.is_duplicate("T-1", log_time_ms=START_MS)
    assert not list(tmp_path.glob("*.bloom"))


def test_statistics_have_their_names_and_can_be_reset(store):
    seen = deduplicator(store)
    seen.is_duplicate_batch(["a", "a", "b"])
    seen.is_duplicate("a")
    stats = dict(seen.get_stats())
    seen.reset_stats()

    wanted = (
        "total_checks bloom_negatives bloom_positives redis_confirms false_positives duplicates "
        "actual_false_positive_rate redis_call_reduction capacity target_error_rate estimated_memory_mb"
    )
    assert set(wanted.split()) <= stats.keys()
    assert (stats["total_checks"], stats["duplicates"], stats["redis_confirms"]) == (4, 2, 1)
    assert seen.get_stats()["total_checks"] == 0


def test_a_hundred_million_ids_fit_into_two_hundred_mebibytes():
    assert ProductionDeduplicator(None).get_stats()["estimated_memory_mb"] < 200


def test_false_positives_at_capacity_stay_below_a_fifth_of_a_percent(store):
    seen = deduplicator(store)
    for hour in range(0, 30, 6):
        ids = pl.Series(range(hour * 10_000, hour * 10_000 + 10_000))
        seen.add_without_check(ids, log_time_ms=START_MS + hour * HOUR_MS)
    seen.suspects(pl.Series(range(10**9, 10**9 + 100_000)), log_time_ms=START_MS + 24 * HOUR_MS)

    stats = seen.get_stats()

    assert stats["ids"] == 50_000
    assert 0 < stats["bloom_positives"] < 200
