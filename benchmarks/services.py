"""What the benchmarks share: a broker and registry of their own, K2's processes beside them, made-up trades."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rows import SECOND_NS, trades
from k2 import bootstrap
from k2.kafka.producer import LogProducer
from k2.kafka.serialization import encode_frame
from k2.local.platform import LocalPlatform
from k2.schemas.arrow import message_polars_schema
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from k2.settings import Settings

CHUNK = 50_000
_REGISTER_SECONDS = 60
_END_SECONDS = 30


@contextmanager
def services() -> Iterator[Settings]:
    """Start a broker and a registry in a directory of their own; give the settings that lead to them."""
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalPlatform(Path(directory) / "data", components=("kafka", "registry")) as platform,
    ):
        yield platform.settings()


@contextmanager
def command(
    settings: Settings, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of K2 against the services, as a process of its own, until the block ends."""
    words = [sys.executable, "-m", "k2.cli.main", *arguments, "--data-dir", str(settings.data_dir)]
    variables = {**os.environ, **(environment or {})}
    process = subprocess.Popen(words, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(_END_SECONDS)


@contextmanager
def worker(settings: Settings) -> Iterator[None]:
    """Run an ingest worker, from when it has registered every topic until the block ends."""
    topics = {topic.name for topic in bootstrap.topic_catalog(settings).market_topics}
    with command(settings, "ingest") as process:
        tables = bootstrap.market_tables(settings)
        deadline = time.monotonic() + _REGISTER_SECONDS
        while topics - {log.topic for name in ("trades", "quotes") for log in tables.head(name).logs}:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the ingest worker did not register the topics")
            time.sleep(0.1)
        tables.close()
        yield


def fill(settings: Settings, records: int, *, begin: int = 0) -> str:
    """Put `records` trades of 100 symbols into the topic of exchange `sim`; return the topic's name.

    `begin` is how many trades of these symbols there are already: numbers go on from there.
    """
    topics = bootstrap.topic_catalog(settings)
    topic = topics.topic("sim", "trades")
    admin, registry, producer = (
        bootstrap.log_admin(settings),
        bootstrap.schema_registry(settings),
        LogProducer(settings.kafka),
    )
    admin.create_topics(topics.all_topics)
    schema_id = registry.register(topic.subject, avro_text(TRADES))
    columns = list(message_polars_schema(TRADES))
    for first in range(0, records, CHUNK):
        rows = trades(CHUNK, first_offset=begin + first, span_ns=60 * SECOND_NS).select(columns)
        keys = [symbol.encode() for symbol in rows["symbol"].to_list()]
        producer.send(topic.name, keys, encode_frame(TRADES, rows, schema_id))
    producer.flush(120)
    producer.close()
    registry.close()
    admin.close()
    return topic.name
