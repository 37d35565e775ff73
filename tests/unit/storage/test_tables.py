"""Tables: what `ensure` makes, what it refuses, and how logs are registered."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError, LogIdentityError, UnavailableError
from k2.schemas.records import DEAD_LETTERS, GAPS, QUOTES, TRADES, Field, FieldType, RecordType
from k2.storage.iceberg_schema import iceberg_schema
from k2.storage.seam import LogPartition, SeamError
from k2.storage.settings import CatalogSettings
from k2.storage.table_creation import evolve_table
from k2.storage.tables import MAIN_TABLES, SIDE_TABLES, MarketTables
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import TOPIC, LocalLake

if TYPE_CHECKING:
    from pathlib import Path

RACERS = 4


def grown(record_type: RecordType, *, nullable: bool) -> RecordType:
    added = Field("k2_new_field", FieldType.STRING, 21, "New", nullable=nullable)
    return dataclasses.replace(record_type, fields=(*record_type.fields, added))


@pytest.mark.parametrize("record_type", [TRADES, QUOTES, DEAD_LETTERS, GAPS], ids=lambda record_type: record_type.name)
def test_tables_keep_the_field_ids_of_the_record_definition(lake: LocalLake, record_type: RecordType) -> None:
    found = lake.tables.load(record_type.name).schema()

    assert found.as_struct() == iceberg_schema(record_type).as_struct()


def test_ensure_creates_once(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path)

    first, second = lake.tables.ensure(), lake.tables.ensure()

    assert (first, second) == (["trades", "quotes", "dead_letters", "gaps"], [])


def test_rows_are_partitioned_by_exchange_and_day_and_sorted_by_symbol_and_time(lake: LocalLake) -> None:
    table = lake.tables.load("trades")

    names = [table.schema().find_column_name(field.source_id) for field in table.sort_order().fields]
    assert [(field.name, str(field.transform)) for field in table.spec().fields] == [
        ("exchange", "identity"),
        ("ts_event_day", "day"),
    ]
    assert names == ["symbol", "ts_event_ns", "log_id", "log_partition", "log_offset"]


def test_an_optional_column_is_added_with_its_own_id(lake: LocalLake) -> None:
    lake.commit("b1", 0, 5)

    added = evolve_table(lake.tables.catalog, lake.tables.load("trades"), grown(TRADES, nullable=True))

    table = lake.tables.load("trades")
    assert added == ["k2_new_field"]
    assert table.schema().find_field("k2_new_field").field_id == 21
    assert table.scan().to_arrow()["k2_new_field"].null_count == 5


def test_a_required_column_cannot_be_added(lake: LocalLake) -> None:
    table = lake.tables.load("trades")

    with pytest.raises(ConfigurationError, match=r"k2_new_field.*only optional"):
        evolve_table(lake.tables.catalog, table, grown(TRADES, nullable=False))


def test_a_column_with_another_id_is_refused(lake: LocalLake) -> None:
    moved = dataclasses.replace(TRADES.fields[0], field_id=99)
    other = dataclasses.replace(TRADES, fields=(moved, *TRADES.fields[1:]))

    with pytest.raises(ConfigurationError, match=r"expected the column 'exchange' .* id 99 .* found id 1"):
        evolve_table(lake.tables.catalog, lake.tables.load("trades"), other)


def test_a_table_that_does_not_exist_names_the_remedy(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path)

    with pytest.raises(ConfigurationError, match=r"market.trades"):
        lake.tables.head("trades")


def test_a_table_with_snapshots_and_no_seam_is_refused(lake: LocalLake) -> None:
    table = lake.tables.load("trades")
    with table.transaction() as transaction:
        transaction.update_snapshot().fast_append().commit()

    with pytest.raises(SeamError, match=r"k2.seam"):
        lake.tables.head("trades")


def test_registering_a_log_puts_its_starts_into_the_seam(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path)
    lake.tables.ensure()

    log = lake.tables.register_log("trades", cluster_id="c", topic_id="t", topic=TOPIC, starts={0: 7, 1: 0})

    head = lake.tables.head("trades")
    assert (log.log_id, log.partitions, head.logs, head.log_of(TOPIC)) == (0, 2, (log,), log)
    assert (head.seam.next_offset(LogPartition(0, 0)), head.seam.next_offset(LogPartition(0, 1))) == (7, 0)


def test_registering_again_changes_nothing(lake: LocalLake) -> None:
    before = lake.tables.head("trades")

    log = lake.tables.register_log(
        "trades", cluster_id="cluster-1", topic_id="topic-1", topic=TOPIC, starts={0: 500, 1: 500}
    )

    assert log == before.logs[0]
    assert lake.tables.head("trades") == before


def test_a_topic_created_again_is_refused_with_both_ids(lake: LocalLake) -> None:
    with pytest.raises(LogIdentityError, match=r"topic id topic-1, found cluster cluster-1 and topic id topic-2"):
        lake.create(topic_id="topic-2")


def test_a_topic_created_again_is_a_new_log_once_a_person_accepts_it(lake: LocalLake) -> None:
    lake.commit("b1", 0, 5)

    log = lake.tables.register_log(
        "trades", cluster_id="cluster-1", topic_id="topic-2", topic=TOPIC, starts={0: 0, 1: 0}, accept_new_log=True
    )

    head = lake.tables.head("trades")
    assert (log.log_id, head.log_of(TOPIC)) == (1, log)
    assert head.seam.next_offset(LogPartition(0, 0)) == 5


def test_a_grown_topic_is_refused(lake: LocalLake) -> None:
    with pytest.raises(LogIdentityError, match=r"expected 2 partitions .* found 3"):
        lake.tables.register_log(
            "trades", cluster_id="cluster-1", topic_id="topic-1", topic=TOPIC, starts={0: 0, 1: 0, 2: 0}
        )


def test_a_lost_reply_does_not_register_a_log_twice(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path)
    lake.tables.ensure()
    lake.catalog.faults.append(Fault.LOSE_REPLY)

    log = lake.tables.register_log("trades", cluster_id="c", topic_id="t", topic=TOPIC, starts={0: 0})

    assert lake.tables.head("trades").logs == (log,)


def test_workers_that_register_at_once_get_one_id_each(tmp_path: Path) -> None:
    LocalLake(tmp_path).tables.ensure()
    lakes = [LocalLake(tmp_path, commit_attempts_max=50) for _ in range(4)]

    def register(lake: LocalLake, number: int) -> None:
        lake.tables.register_log(
            "trades", cluster_id="c", topic_id=f"t{number % 3}", topic=f"topic{number % 3}", starts={0: 0}
        )

    threads = [threading.Thread(target=register, args=(lake, number)) for number, lake in enumerate(lakes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    logs = lakes[0].tables.head("trades").logs
    assert [log.log_id for log in logs] == [0, 1, 2]
    assert sorted(log.topic_id for log in logs) == ["t0", "t1", "t2"]
    for lake in lakes:
        lake.close()


def test_a_catalog_that_is_down_is_unavailable(lake: LocalLake) -> None:
    lake.catalog.loads_fail = True

    with pytest.raises(UnavailableError, match=r"market.trades"):
        lake.tables.load("trades")


@pytest.mark.parametrize("run", range(5))
def test_processes_that_create_the_same_tables_at_once_agree(tmp_path: Path, run: int) -> None:
    settings = CatalogSettings(uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=(tmp_path / f"lake{run}").as_uri())
    together = threading.Barrier(RACERS)

    def create() -> list[str]:
        tables = MarketTables(settings, SystemClock())
        together.wait()
        try:
            return tables.ensure()
        finally:
            tables.close()

    with ThreadPoolExecutor(RACERS) as pool:
        created = [name for racer in [pool.submit(create) for _ in range(RACERS)] for name in racer.result()]

    assert sorted(created) == sorted({**MAIN_TABLES, **SIDE_TABLES})


def test_processes_that_add_the_same_column_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LocalLake(tmp_path).create().close()
    monkeypatch.setitem(MAIN_TABLES, "trades", grown(TRADES, nullable=True))
    faster = iter([LocalLake(tmp_path)])

    def another_is_faster() -> None:
        for lake in faster:
            lake.tables.ensure()

    slower = LocalLake(tmp_path, before_commit=another_is_faster)

    created = slower.tables.ensure()

    assert created == []
    assert slower.tables.load("trades").schema().find_field("k2_new_field").field_id == 21
