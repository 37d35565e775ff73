"""The shedder sorts keys by the same table as the ladder, one by one and by columns."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.common.circuit_breaker import CircuitBreaker, DegradationLevel
from k2.common.degradation import DEFERRED_FROM, Priority, keeps
from k2.common.load_shedder import LoadShedder, TieredPriorities

TIERS = TieredPriorities({"BHP", "CBA"}, {"RIO", "é"})
LAGS = dict(zip(DegradationLevel, (0, 1e5, 5e5, 1e6, 5e6), strict=True))
symbols = st.sampled_from(["BHP", "CBA", "RIO", "é", "XYZ", "ABC"])
keys = st.lists(st.none() | st.binary(max_size=3) | symbols.map(str.encode), max_size=60)
levels = st.sampled_from(list(DegradationLevel))
kinds = st.sampled_from(["trades", "quotes"])


@pytest.fixture
def shedder() -> LoadShedder:
    return LoadShedder(TIERS)


@pytest.mark.parametrize(
    ("symbol", "data_type", "priority"),
    [
        ("BHP", "trades", Priority.CRITICAL),
        ("BHP", "quotes", Priority.CRITICAL),
        ("RIO", "trades", Priority.HIGH),
        ("RIO", "quotes", Priority.HIGH),
        ("XYZ", "trades", Priority.NORMAL),
        ("XYZ", "quotes", Priority.LOW),
    ],
)
def test_the_tier_and_the_kind_give_the_priority(
    shedder: LoadShedder, symbol: str, data_type: str, priority: Priority
) -> None:
    assert shedder.get_priority(symbol, data_type) is priority


def test_a_key_in_both_tiers_is_of_the_first() -> None:
    assert TieredPriorities({"BHP"}, {"BHP"})("BHP", "trades") is Priority.CRITICAL


@pytest.mark.parametrize("level", list(DegradationLevel))
def test_critical_keys_are_kept_at_every_level(level: DegradationLevel) -> None:
    assert keeps(level, Priority.CRITICAL)


def test_the_table_defers_more_with_each_level_and_always_from_the_least_important_on() -> None:
    kept = [[priority for priority in Priority if keeps(level, priority)] for level in DegradationLevel]

    assert kept == [list(Priority)[:count] for count in (4, 4, 3, 2, 1)]


@given(symbols, kinds, levels)
def test_breaker_and_shedder_never_disagree(symbol: str, kind: str, level: DegradationLevel) -> None:
    breaker, shedder = CircuitBreaker(priority_of=TIERS), LoadShedder(TIERS)
    breaker.check_and_degrade(LAGS[level])

    one = breaker.should_process_symbol(symbol, kind)

    assert breaker.level is level
    assert one == shedder.should_process(symbol, level, kind)
    assert [one] == shedder.divide([symbol.encode()], level, kind).keep.tolist()


@given(keys, kinds, levels)
def test_a_batch_is_sorted_as_its_keys_are_one_by_one(
    batch: list[bytes | None], kind: str, level: DegradationLevel
) -> None:
    shedder = LoadShedder(TIERS)

    division = shedder.divide(batch, level, kind)

    expected = [keeps(level, priority_of_bytes(key, kind)) for key in batch]
    assert division.keep.tolist() == expected
    assert sum(division.by_priority) == len(batch)
    assert division.deferred == expected.count(False)


def priority_of_bytes(key: bytes | None, kind: str) -> Priority:
    try:
        return Priority.CRITICAL if key is None else TIERS(key.decode(), kind)
    except UnicodeDecodeError:
        return Priority.CRITICAL


@pytest.mark.parametrize(
    "made",
    [
        lambda keys: keys,
        lambda keys: pa.array(keys, type=pa.binary()),
        lambda keys: pa.array(keys, type=pa.large_binary()),
        lambda keys: pa.array([key and key.decode() for key in keys]),
        lambda keys: pl.Series(keys, dtype=pl.Binary),
        lambda keys: pl.Series([key and key.decode() for key in keys], dtype=pl.String),
    ],
)
def test_keys_come_as_a_list_a_series_or_an_array(shedder: LoadShedder, made: object) -> None:
    batch = made([b"BHP", None, "é".encode(), b"XYZ", b"BHP"])  # type: ignore[operator]  # one of the functions above

    assert shedder.priorities(batch).tolist() == [0, 0, 1, 2, 0]


def test_a_key_that_is_missing_or_unreadable_is_never_deferred(shedder: LoadShedder) -> None:
    division = shedder.divide([None, b"\xff\xfe"], DegradationLevel.CIRCUIT_BREAK)

    assert division.keep.tolist() == [True, True]


def test_nothing_defers_from_critical_on(shedder: LoadShedder) -> None:
    with pytest.raises(ValueError, match="below CRITICAL"):
        shedder.divide_from([b"BHP"], Priority.CRITICAL)


def test_without_priorities_every_key_is_alike() -> None:
    assert LoadShedder().get_priority("BHP", "trades") is Priority.NORMAL


def test_statistics_count_what_was_looked_at_and_what_was_deferred(shedder: LoadShedder) -> None:
    shedder.should_process("XYZ", DegradationLevel.AGGRESSIVE)
    shedder.should_process("BHP", DegradationLevel.AGGRESSIVE)
    shedder.divide([b"BHP", b"XYZ", b"XYZ"], DegradationLevel.GRACEFUL, "quotes")

    stats = shedder.get_shed_stats()

    assert (stats["checked"], stats["shed"], stats["shed_ratio"]) == (5, 3, 0.6)
    assert stats["shed_by_priority"] == {"CRITICAL": 0, "HIGH": 0, "NORMAL": 1, "LOW": 2}
    assert LoadShedder().get_shed_stats()["shed_ratio"] == 0


def test_the_observer_hears_how_many_of_each_priority_and_why() -> None:
    heard: list[tuple[Priority, str, int]] = []
    shedder = LoadShedder(TIERS, observer=lambda *told: heard.append(told))

    shedder.divide([b"BHP", b"RIO", b"XYZ", b"XYZ"], DegradationLevel.CIRCUIT_BREAK, reason="lag")

    assert heard == [(Priority.HIGH, "lag", 1), (Priority.NORMAL, "lag", 2)]


def test_the_memory_of_priorities_is_bounded() -> None:
    asked: list[str] = []

    def priority_of(symbol: str, _kind: str) -> Priority:
        asked.append(symbol)
        return Priority.LOW

    shedder = LoadShedder(priority_of, keys_max=2)
    for key in (b"a", b"a", b"b", b"c", b"a"):
        shedder.priorities([key])

    assert asked == ["a", "b", "c", "a"]


def test_every_level_has_its_line_in_the_table() -> None:
    assert len(DEFERRED_FROM) == len(DegradationLevel)
