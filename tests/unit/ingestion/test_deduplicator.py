"""The deduplicator of a table on real Iceberg files: what is stored is read back, before anything is dropped."""

from __future__ import annotations

import polars as pl
import pytest

from k2.common.errors import FencedError
from k2.ingestion.duplicates.deduplicator import Part, TableDeduplicator
from k2.ingestion.settings import DeduplicationSettings
from k2.schemas.identity import IdentityRules
from k2.schemas.records import TRADES
from k2.storage.file_checks import FileChecks
from k2.storage.planning import Planner
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.stored_rows import StoredRows
from k2.storage.writer import Batch
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import market_rows

AT = LogPartition(0, 0)
STORED = 20


@pytest.fixture
def lake(tmp_path):
    lake = LocalLake(tmp_path).create()
    lake.commit("first", 0, STORED)
    yield lake
    lake.close()


class CountedRows(StoredRows):
    """Counts how often winners are looked for."""

    looks = 0

    def between(self, *arguments, **options):
        self.looks += 1
        return super().between(*arguments, **options)


def stored_rows(lake, kind=CountedRows):
    planner = Planner(lake.tables, lake.settings)
    return kind(planner, lake.tables, "trades", FileChecks(check_contents=True, files_max=10))


def deduplicator(lake, stored=None, **settings):
    return TableDeduplicator(
        TRADES,
        rules=IdentityRules(numbered=frozenset({"sim"})),
        stored=stored or stored_rows(lake),
        settings=DeduplicationSettings(ids_capacity=1_000, **settings),
    )


def part(records: range, *, start: int = STORED, **changes: pl.Expr) -> dict[LogPartition, Part]:
    """Return these records once more, from the offset `start` on."""
    rows = market_rows(records).with_columns(log_offset=start + pl.int_range(pl.len(), dtype=pl.Int64), **changes)
    return {AT: Part(start, [rows.drop("commit_sequence", "written_by")])}


@pytest.mark.parametrize("rebuild_rows_max", [0, 1_000])
def test_stored_records_are_dropped_and_new_ones_kept_with_or_without_memory(lake, rebuild_rows_max):
    found = deduplicator(lake, rebuild_rows_max=rebuild_rows_max).decide(part(range(15, 30)))[AT]

    assert found.duplicates == 5
    assert [offset for frame in found.kept for offset in frame["log_offset"]] == list(range(25, 35))
    assert found.conflicts == ()


def test_other_content_is_kept_and_told(lake):
    price = pl.when(pl.col("source_sequence") == 3).then(99).otherwise("price").cast(pl.Decimal(28, 12))

    found = deduplicator(lake).decide(part(range(5), price=price))[AT]

    assert (found.duplicates, found.conflicts) == (4, (23,))


def test_a_batch_that_was_not_committed_is_not_remembered(lake):
    stored = stored_rows(lake)
    memory = deduplicator(lake, stored)
    first = memory.decide(part(range(100, 110)))[AT]
    again = memory.decide(part(range(100, 110)))[AT]

    assert (first.duplicates, again.duplicates) == (0, 0)
    assert stored.looks == 0, "nothing like these records is known to be stored"


def test_what_is_remembered_but_not_stored_drops_nothing(lake):
    memory = deduplicator(lake)
    decisions = memory.decide(part(range(100, 110)))
    memory.committed(decisions, {AT: PartitionDelta(STORED, STORED, Counts())}, 2)

    again = memory.decide(part(range(100, 110)))[AT]

    assert again.duplicates == 0


def test_a_table_that_is_further_than_the_batch_refuses_it(lake):
    with pytest.raises(FencedError):
        deduplicator(lake).decide(part(range(5), start=10))


def test_trade_ids_serve_where_the_venue_does_not_number(tmp_path):
    lake = LocalLake(tmp_path).create()
    memory = TableDeduplicator(
        TRADES,
        rules=IdentityRules(),
        stored=stored_rows(lake),
        settings=DeduplicationSettings(ids_capacity=1_000),
    )
    name = pl.format("T-{}", "source_sequence")
    decisions = memory.decide(part(range(10), start=0, trade_id=name))
    rows = decisions[AT].kept[0].with_columns(commit_sequence=pl.lit(1, pl.Int64), written_by=pl.lit("ingest"))
    batch = lake.batch("b", 0, 10)
    files = lake.writer().write_files(rows.select(market_rows([0]).columns))
    commit = lake.writer().commit(type(batch)("b", batch.deltas, files))
    memory.committed(decisions, batch.deltas, commit.seam.commit_sequence)

    again = memory.decide(part(range(5, 15), start=10, trade_id=name))[AT]

    assert again.duplicates == 5
    lake.close()


def test_what_others_wrote_below_the_seam_is_read_before_the_next_batch(lake):
    memory = deduplicator(lake)
    decisions = memory.decide(part(range(100, 110)))
    rows = market_rows(range(100, 110), commit_sequence=2)
    lake.commit("own", STORED, STORED + 10)
    memory.committed(decisions, {AT: PartitionDelta(STORED, STORED + 10, Counts())}, 2)
    deferred_since = lake.tables.head("trades").seam.commit_sequence
    backfilled = rows.with_columns(log_offset=pl.lit(5, pl.Int64), sequence=pl.lit(777, pl.Int64))[:1]
    files = lake.writer().write_files(backfilled.with_columns(commit_sequence=pl.lit(deferred_since + 1, pl.Int64)))
    lake.writer().commit(Batch("backfill", {LogPartition(0, 1): PartitionDelta(0, 1, Counts(1, 1))}, files))
    again = part(range(100, 101), start=STORED + 10, sequence=pl.lit(777, pl.Int64))

    unaware = memory.decide(again)[AT].duplicates
    memory.written_elsewhere({AT: deferred_since})
    aware = memory.decide(again)[AT].duplicates

    assert (unaware, aware) == (0, 1)


def test_what_is_told_while_a_batch_is_decided_is_read_before_the_next_one(lake):
    class Telling(CountedRows):
        """Hears of a backfill after it has read the rows that memory lacks."""

        pins = 0

        def since(self, *arguments):
            yield from super().since(*arguments)
            memory.written_elsewhere({AT: 0})

        def pin(self):
            self.pins += 1
            return super().pin()

    rows = stored_rows(lake, Telling)
    memory = deduplicator(lake, rows)

    memory.decide(part(range(100, 110)))
    before = rows.pins
    memory.decide(part(range(100, 110)))

    assert (before, rows.pins) == (1, 2)
