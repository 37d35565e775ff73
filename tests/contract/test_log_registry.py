"""What every schema registry does for K2: the fake and the real one pass the same tests."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import ConfigurationError
from k2.kafka.registry import SchemaRegistry, UnknownSchemaError
from k2.schemas.avro import avro_schema, avro_text
from k2.schemas.records import QUOTES, TRADES
from k2.testing.fake_log import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def real(kafka_settings) -> Iterator[SchemaRegistry]:
    registry = SchemaRegistry(kafka_settings)
    yield registry
    registry.close()


@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.platform)])
def registry(request):
    return FakeRegistry() if request.param == "fake" else request.getfixturevalue("real")


@pytest.fixture
def subject() -> str:
    return f"market.test.trades.{uuid.uuid4().hex[:12]}-value"


def with_field(field: dict) -> str:
    schema = avro_schema(TRADES)
    return json.dumps(schema | {"fields": [*schema["fields"], field]})


def test_a_schema_comes_back_as_it_was_registered(registry, subject) -> None:
    schema_id = registry.register(subject, avro_text(TRADES))

    assert json.loads(registry.schema_text(schema_id)) == avro_schema(TRADES)


def test_registering_again_gives_the_same_id(registry, subject) -> None:
    first = registry.register(subject, avro_text(QUOTES))

    assert registry.register(subject, avro_text(QUOTES)) == first


def test_another_schema_gets_another_id(registry, subject) -> None:
    first = registry.register(subject, avro_text(TRADES))
    second = registry.register(subject, with_field({"name": "venue", "type": "string", "default": "x"}))

    assert first != second


@pytest.mark.parametrize("schema_id", [0, 999_999, 2**31 - 1, 2**32 - 1])
def test_an_unknown_id_is_a_bad_record(registry, schema_id) -> None:
    with pytest.raises(UnknownSchemaError, match=str(schema_id)):
        registry.schema_text(schema_id)


@pytest.mark.platform
def test_a_subject_gets_the_transitive_rule(real, subject) -> None:
    real.register(subject, avro_text(TRADES))

    assert real.compatibility(subject) == "BACKWARD_TRANSITIVE"


@pytest.mark.platform
def test_a_field_without_a_default_is_refused(real, subject) -> None:
    real.register(subject, avro_text(TRADES))

    with pytest.raises(ConfigurationError, match="only add fields that have a default"):
        real.register(subject, with_field({"name": "venue", "type": "string"}))


@pytest.mark.platform
def test_a_text_that_is_no_schema_is_refused(real, subject) -> None:
    with pytest.raises(ConfigurationError):
        real.register(subject, '{"type": "nonsense"}')
