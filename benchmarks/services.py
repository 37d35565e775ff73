"""What the benchmarks share: a broker and registry of their own, and made-up trades in the log."""

from __future__ import annotations

import tempfile
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
    from collections.abc import Iterator

    from k2.settings import Settings

CHUNK = 50_000


@contextmanager
def services() -> Iterator[Settings]:
    """Start a broker and a registry in a directory of their own; give the settings that lead to them."""
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalPlatform(Path(directory) / "data", components=("kafka", "registry")) as platform,
    ):
        yield platform.settings()


def fill(settings: Settings, records: int) -> str:
    """Put `records` trades of 100 symbols into the topic of exchange `sim`; return the topic's name."""
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
        rows = trades(CHUNK, first_offset=first, span_ns=60 * SECOND_NS).select(columns)
        keys = [symbol.encode() for symbol in rows["symbol"].to_list()]
        producer.send(topic.name, keys, encode_frame(TRADES, rows, schema_id))
    producer.flush(120)
    producer.close()
    registry.close()
    admin.close()
    return topic.name
