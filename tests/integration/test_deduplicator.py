"""The deduplicator by id on a real Valkey: restarts, a flush, an outage, and what an id costs."""

from __future__ import annotations

import uuid

import polars as pl
import pytest
import valkey

from k2.ingestion.bloom_deduplicator import ProductionDeduplicator, create_deduplicator
from k2.ingestion.duplicates.confirm_store import Sighting

pytestmark = pytest.mark.platform

NOW_MS = 1_800_000_000_000


@pytest.fixture
def client(valkey_url):
    client = valkey.Valkey.from_url(valkey_url)
    yield client
    client.close()


@pytest.fixture
def namespace():
    return f"t:{uuid.uuid4().hex[:8]}"


def bytes_held(client):
    """Return what the server holds less the buffers of its connections."""
    memory = client.info("memory")
    return memory["used_memory"] - memory["mem_clients_normal"]


def test_each_id_is_new_once_and_a_restart_still_knows_it(client, namespace):
    first = ProductionDeduplicator(client, 100_000, namespace=namespace)
    ids = pl.Series([f"T-{number}" for number in range(20_000)])
    new, again = first.is_duplicate_batch(ids), first.is_duplicate_batch(ids)

    restarted = create_deduplicator(client, capacity=100_000, namespace=namespace)
    after = restarted.is_duplicate_batch(ids)

    assert (sum(new), sum(again), sum(after)) == (0, 20_000, 20_000)
    assert not restarted.is_duplicate("T-20000")


def test_a_flush_is_noticed_and_the_table_asked(client, namespace):
    table = {"T-1": Sighting(NOW_MS, 1)}
    seen = create_deduplicator(
        client, capacity=1_000, namespace=namespace, confirm=lambda ids: [table.get(each) for each in ids], stored=()
    )
    seen.is_duplicate_batch(["T-1", "T-2"], log_time_ms=NOW_MS)
    for key in client.scan_iter(f"{namespace}*"):
        client.delete(key)

    answers = seen.is_duplicate_batch(["T-1", "T-2", "T-3"], log_time_ms=NOW_MS)

    assert answers == [True, False, False]


def test_an_outage_drops_nothing(namespace):
    gone = ProductionDeduplicator(valkey.Valkey(port=1, socket_timeout=1), 1_000, namespace=namespace)

    answers = [gone.is_duplicate("T-1"), gone.is_duplicate("T-1")]

    assert answers == [False, False]
    assert gone.get_stats()["redis_failures"] > 0


def test_a_full_generation_takes_at_most_twenty_bytes_an_id(client, namespace):
    client.flushall()
    seen = ProductionDeduplicator(client, 390_000, namespace=namespace)
    before = bytes_held(client)

    seen.add_without_check(pl.Series(range(78_000)), offsets=range(10**8, 10**8 + 78_000), log_time_ms=NOW_MS)
    bytes_an_id = (bytes_held(client) - before) / 78_000

    assert bytes_an_id <= 20
