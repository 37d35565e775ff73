"""Damaged data files: never served as right, named, and the rest answered where the caller accepts that."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from k2.common.errors import CorruptionError
from k2.query.intact_files import IntactFiles
from k2.query.request import QueryRequest
from k2.query.scan import FILES, Scanner, files_literal, files_source
from k2.schemas.records import TRADES
from k2.storage.file_checks import FileChecks
from k2.storage.planning import PlannedFile, Planner
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import market_rows
from k2.testing.simulated_hybrid import simulated_hybrid, topic
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k2.testing.simulated_hybrid import SimulatedHybrid

SIM = topic("sim", partitions=1)
ALL = f"SELECT * FROM {files_source(TRADES)} ORDER BY log_offset"
FLIPS = 500


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def scanner_of(directory: Path) -> Scanner:
    return Scanner([str(directory)], memory_limit_bytes=2**28, threads=1, seconds_max=30)


def raise_it(damage: CorruptionError) -> None:
    raise damage


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    """Two data files of three trades each, and two trades more in the log alone."""
    market = SimulatedMarket(tmp_path, [SIM])
    market.register(SIM.name)
    for number in range(8):
        market.append(SIM.name, "BHP", number)
    market.commit(SIM.name, 0, 3)
    market.commit(SIM.name, 0, 3)
    made = simulated_hybrid(market, tmp_path)
    made.tail.step()
    yield made
    made.close()


def file_paths(hybrid: SimulatedHybrid) -> list[Path]:
    market = hybrid.market
    return [Path(file.path) for file in market.plan(market.pin("trades"))]


def ask(hybrid: SimulatedHybrid, on_degrade: str) -> tuple[list[int], tuple[str, ...], str | None]:
    answer = hybrid.engine.query(QueryRequest(data_type="trades", symbol="BHP", on_degrade=on_degrade))  # type: ignore[arg-type]
    return answer.table["ts_event_ns"].to_pylist(), answer.certificate.reasons, answer.certificate.as_of


def test_a_damaged_file_fails_the_question_and_is_named(hybrid: SimulatedHybrid) -> None:
    first, _ = file_paths(hybrid)
    flip(first, 800)

    with pytest.raises(CorruptionError, match=f"{first.name} is damaged: expected CRC32 .* holds 3 rows"):
        ask(hybrid, "fail")

    assert list(hybrid.engine.get_stats()["damaged_files"]) == [str(first)]


def test_the_rest_is_served_marked_incomplete_and_without_a_token(hybrid: SimulatedHybrid) -> None:
    first, _ = file_paths(hybrid)
    flip(first, 800)

    times, reasons, token = ask(hybrid, "partial")

    assert times == [3, 4, 5, 6, 7]
    assert [first.name in reason for reason in reasons] == [True]
    assert token is None


@pytest.mark.parametrize("harm", ["missing", "cut short", "longer"])
def test_a_file_that_is_gone_or_has_another_size_is_named_too(hybrid: SimulatedHybrid, harm: str) -> None:
    _, second = file_paths(hybrid)
    content = second.read_bytes()
    if harm == "missing":
        second.unlink()
    else:
        second.write_bytes(content[:-1] if harm == "cut short" else content + b"\0")

    times, reasons, _ = ask(hybrid, "partial")

    assert times == [0, 1, 2, 6, 7]
    assert second.name in reasons[0]


def test_a_file_that_was_put_back_is_served_again(hybrid: SimulatedHybrid) -> None:
    first, _ = file_paths(hybrid)
    whole = first.read_bytes()
    flip(first, 800)
    before = ask(hybrid, "partial")
    first.unlink()
    first.write_bytes(whole)

    after = ask(hybrid, "fail")

    assert (before[0], after[0]) == ([3, 4, 5, 6, 7], list(range(8)))


def test_a_file_without_a_recorded_checksum_is_left_out_once_duckdb_cannot_read_it(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path).create()
    files = [lake.writer().write_files(market_rows(range(start, start + 10)))[0] for start in (0, 10)]
    paths = [Path(file.path.removeprefix("file://")) for file in files]
    planned = [PlannedFile(str(path), 10, path.stat().st_size) for path in paths]
    content = bytearray(paths[0].read_bytes())
    content[-8:] = bytes(8)
    paths[0].write_bytes(content)
    damaged: list[CorruptionError] = []
    intact = IntactFiles(scanner_of(tmp_path), FileChecks(check_contents=True, files_max=10))

    found = intact.fetch(ALL, {}, planned, damaged.append)

    assert found is not None
    assert (found.num_rows, [error.path for error in damaged]) == (10, [str(paths[0])])
    lake.close()


def test_no_flipped_bit_of_a_data_file_is_served_as_right(tmp_path: Path) -> None:
    """What DuckDB alone makes of the same flips is counted beside it: that is why files are checked."""
    lake = LocalLake(tmp_path, row_group_rows=1_024).create()
    lake.commit("b1", 0, 3_000)
    planner = Planner(lake.tables, lake.settings)
    (file,) = planner.plan(planner.pin("trades"))
    path = Path(file.path)
    whole = path.read_bytes()
    plain = duckdb.connect(config={"threads": 1})
    plain.execute("SET enable_external_file_cache = false")
    statement = ALL.replace(FILES, files_literal([file.path]))
    expected = plain.execute(statement).to_arrow_table()
    drawn = random.Random(19)
    seen = Counter({"refused": 0, "error": 0, "same": 0, "wrong": 0})

    for _ in range(FLIPS):
        flip(path, drawn.randrange(8 * len(whole)))
        seen["refused"] += FileChecks(check_contents=True, files_max=10).damage(file) is not None
        try:
            seen["same" if plain.execute(statement).to_arrow_table().equals(expected) else "wrong"] += 1
        except duckdb.Error:
            seen["error"] += 1
        path.write_bytes(whole)

    sys.stdout.write(f"{FLIPS} flipped bits, checked or read by DuckDB alone: {dict(seen)}\n")
    assert seen["refused"] == FLIPS
    assert seen["wrong"] > 0, "DuckDB verifies pages by now: the check before the first use may not be needed any more"
    lake.close()
