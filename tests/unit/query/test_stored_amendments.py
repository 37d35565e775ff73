"""Amendments in real files: which are read, how often, and what becomes of damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from k2.common.errors import CorruptionError, QueryError
from k2.query.amendments import KeptAmendments
from k2.query.intact_files import IntactFiles
from k2.query.scan import Scanner
from k2.query.settings import QuerySettings
from k2.schemas.records import TRADES, Action
from k2.storage.file_checks import FileChecks
from k2.storage.planning import Planner
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep.compaction import Compactor
from k2.storage.writer import Batch
from k2.testing.damage import flip
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import START_NS, market_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from k2.storage.planning import PlannedFile

DAY_NS = 86_400_000_000_000
ROWS = 12
MARKET_ROWS_DAY = START_NS // DAY_NS


class CountingScanner(Scanner):
    """Counts the statements that it runs."""

    def __init__(self, directory: Path) -> None:
        super().__init__([str(directory)], memory_limit_bytes=2**28, threads=1, seconds_max=30)
        self.asked = 0

    def fetch(self, sql: str, values: Mapping[str, Any], **more: Any) -> pa.Table:
        self.asked += 1
        return super().fetch(sql, values, **more)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[LocalLake]:
    lake = LocalLake(tmp_path).create()
    yield lake
    lake.close()


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[CountingScanner]:
    with CountingScanner(tmp_path) as scanner:
        yield scanner


def add(lake: LocalLake, number: int, *cancelled: int, day: int = 0, dated: int = 0) -> None:
    """Commit a file of rows on a day after the first, some of them cancels that are dated days back."""
    start = number * ROWS
    rows = market_rows(range(start, start + ROWS), start_ns=START_NS + day * DAY_NS, commit_sequence=number + 1)
    is_cancel = pl.col("log_offset").is_in([start + offset for offset in cancelled])
    rows = rows.with_columns(
        action=pl.when(is_cancel).then(pl.lit(Action.CANCEL)).otherwise("action"),
        trading_date=pl.col("trading_date").dt.offset_by(f"-{dated}d"),
        trade_id=pl.col("log_offset").cast(pl.String),
    )
    delta = PartitionDelta(start, start + ROWS, Counts(consumed=ROWS, rows=ROWS))
    lake.writer().commit(Batch(f"b{number}", {LogPartition(0, 0): delta}, lake.writer().write_files(rows)))


def amended(lake: LocalLake, **asked: Any) -> Sequence[PlannedFile]:
    planner = Planner(lake.tables, lake.settings)
    return planner.amended(planner.pin("trades"), **asked)


def kept(scanner: Scanner, **settings: Any) -> KeptAmendments:
    files = IntactFiles(scanner, FileChecks(check_contents=True, files_max=100))
    return KeptAmendments(files, QuerySettings(**settings))


def refuse(damage: CorruptionError) -> None:
    raise damage


def offsets(amendments: KeptAmendments, files: Sequence[PlannedFile], symbol: str = "AAA") -> list[int]:
    return sorted(amendments.of(TRADES, symbol, files, refuse)["log_offset"].to_list())


def test_only_files_with_amendments_are_named(lake: LocalLake) -> None:
    add(lake, 0)
    add(lake, 1, 3)
    add(lake, 2)

    files = amended(lake)

    assert [file.rows for file in files] == [ROWS]
    assert files == amended(lake, exchange="sim", symbol="AAA")
    assert amended(lake, exchange="asx") == amended(lake, symbol="ZZZ") == ()


def test_files_are_told_apart_by_the_trading_dates_of_their_rows(lake: LocalLake) -> None:
    add(lake, 0, 3)
    add(lake, 1, 3, day=3, dated=3)
    add(lake, 2, 3, day=3)

    first_day = amended(lake, dates=(MARKET_ROWS_DAY, MARKET_ROWS_DAY))
    last_day = amended(lake, dates=(MARKET_ROWS_DAY + 3, MARKET_ROWS_DAY + 3))

    assert (len(first_day), len(last_day), len(amended(lake))) == (2, 1, 3)
    assert set(first_day).isdisjoint(last_day)


def test_a_compacted_file_still_says_that_it_holds_amendments(lake: LocalLake, scanner: CountingScanner) -> None:
    for number in range(4):
        add(lake, number, *([3] if number == 2 else []))
    wanted = UpkeepSettings(file_bytes_min=10**9, file_bytes_max=2 * 10**9, merge_files_min=4, quiet_minutes=0)
    scratch = Path(lake.settings.warehouse.removeprefix("file://")) / "scratch"

    list(Compactor(lake.tables, lake.settings, wanted, lake.clock, scratch_dir=scratch).run("trades"))

    (file,) = amended(lake)
    assert file.rows == 4 * ROWS
    assert offsets(kept(scanner), [file]) == [2 * ROWS + 3]


def test_each_file_is_read_once(lake: LocalLake, scanner: CountingScanner) -> None:
    add(lake, 0, 0, 1, 3)
    add(lake, 1, 0)
    amendments = kept(scanner)

    first = offsets(amendments, amended(lake))
    again = offsets(amendments, amended(lake))
    other = offsets(amendments, amended(lake), "BBB")
    add(lake, 2, 3)
    more = offsets(amendments, amended(lake))

    assert (first, again, other, more) == ([0, 3, 12], [0, 3, 12], [1], [0, 3, 12, 27])
    assert scanner.asked == 2


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_what_does_not_fit_in_memory_is_read_anew(lake: LocalLake, scanner: CountingScanner, most: int) -> None:
    add(lake, 0, 0, 1, 3)
    add(lake, 1, 0, 3, 6)
    add(lake, 2, 1)
    amendments = kept(scanner, amendments_kept_max=most)

    for _ in range(3):
        assert offsets(amendments, amended(lake)) == [0, 3, 12, 15, 18]
        assert offsets(amendments, amended(lake), "BBB") == [1, 25]
    assert amendments._rows <= most or len(amendments._kept) == 1


def test_large_files_are_read_symbol_by_symbol(
    lake: LocalLake, scanner: CountingScanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.query.amendments._SMALL_ROWS_MAX", ROWS - 1)
    add(lake, 0, 0, 1, 3)
    add(lake, 1, 0)
    amendments = kept(scanner)

    found = [offsets(amendments, amended(lake), symbol) for symbol in ("AAA", "AAA", "BBB", "BBB", "CCC", "CCC")]

    assert found == [[0, 3, 12], [0, 3, 12], [1], [1], [], []]
    assert scanner.asked == 3


def test_more_amendments_than_an_answer_may_hold_are_refused(lake: LocalLake, scanner: CountingScanner) -> None:
    add(lake, 0, 0, 3, 6)

    with pytest.raises(QueryError, match="AAA has more than 2 amendments"):
        kept(scanner, rows_max=2).of(TRADES, "AAA", amended(lake), refuse)


def test_a_damaged_file_is_told_of_at_each_question(lake: LocalLake, scanner: CountingScanner) -> None:
    add(lake, 0, 0)
    add(lake, 1, 0)
    damaged, _ = files = amended(lake)
    flip(Path(damaged.path), 2_000)
    amendments = kept(scanner)
    told: list[CorruptionError] = []

    found = [amendments.of(TRADES, "AAA", files, told.append).height for _ in range(2)]

    assert found == [1, 1]
    assert [error.path for error in told] == [damaged.path] * 2
    with pytest.raises(CorruptionError):
        amendments.of(TRADES, "AAA", files, refuse)
