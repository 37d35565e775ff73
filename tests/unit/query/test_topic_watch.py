"""What a look at the tables teaches."""

from __future__ import annotations

from types import SimpleNamespace

from k2.kafka.registry import CachedSchemas
from k2.query.topic_watch import LearningHeads
from k2.testing.fake_log import FakeRegistry


def test_schemas_that_a_table_has_recorded_are_known_without_the_registry() -> None:
    registry = FakeRegistry()
    registry.is_up = False
    schemas = CachedSchemas(registry, {}, entries_max=100)
    tables = SimpleNamespace(head=lambda _: SimpleNamespace(schemas={7: "text"}))

    LearningHeads(tables, {"trades": schemas}).head("trades")  # type: ignore[arg-type]  # all that is asked of them

    assert schemas.schema_text(7) == "text"
