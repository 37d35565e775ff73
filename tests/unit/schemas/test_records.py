"""One definition of each record: the derived schemas agree with it and with each other."""

from __future__ import annotations

import json

import fastavro
import pytest

from k2.schemas.arrow import arrow_schema, message_polars_schema, polars_schema
from k2.schemas.avro import avro_schema, avro_text
from k2.schemas.records import DEAD_LETTERS, GAPS, ORDER, QUOTES, RECORD_TYPES, TRADES, Origin, RecordType

ALL = [TRADES, QUOTES, DEAD_LETTERS, GAPS]
MESSAGES = list(RECORD_TYPES.values())


@pytest.mark.parametrize("record_type", ALL, ids=lambda kind: kind.name)
def test_names_and_field_ids_are_unique(record_type: RecordType) -> None:
    names = [field.name for field in record_type.fields]
    ids = [field.field_id for field in record_type.fields] + [f.element_id for f in record_type.fields if f.element_id]

    assert len(set(names)) == len(names)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("record_type", MESSAGES, ids=lambda kind: kind.name)
def test_the_avro_schema_is_one_that_avro_accepts(record_type: RecordType) -> None:
    parsed = fastavro.parse_schema(json.loads(avro_text(record_type)))

    assert [field["name"] for field in parsed["fields"]] == [field.name for field in record_type.message_fields]


@pytest.mark.parametrize("record_type", MESSAGES, ids=lambda kind: kind.name)
def test_a_nullable_field_has_a_default_so_that_readers_of_other_versions_agree(record_type: RecordType) -> None:
    defaults = {field["name"]: field.get("default", "none") for field in avro_schema(record_type)["fields"]}

    assert all(defaults[field.name] is None for field in record_type.message_fields if field.nullable)


@pytest.mark.parametrize("record_type", ALL, ids=lambda kind: kind.name)
def test_arrow_and_polars_name_the_same_columns_in_the_same_order(record_type: RecordType) -> None:
    assert list(polars_schema(record_type)) == arrow_schema(record_type).names


@pytest.mark.parametrize("record_type", ALL, ids=lambda kind: kind.name)
def test_arrow_fields_carry_the_field_ids(record_type: RecordType) -> None:
    found = [int(field.metadata[b"PARQUET:field_id"]) for field in arrow_schema(record_type)]

    assert found == [field.field_id for field in record_type.fields]


@pytest.mark.parametrize("record_type", MESSAGES, ids=lambda kind: kind.name)
def test_every_row_has_its_coordinate_and_the_columns_of_the_order(record_type: RecordType) -> None:
    by_name = {field.name: field for field in record_type.fields}

    assert all(not by_name[name].nullable for name in (*ORDER, "commit_sequence", "written_by", "ts_log"))
    assert by_name["log_offset"].origin is Origin.LOG


def test_the_message_holds_nothing_that_the_log_or_the_commit_knows() -> None:
    assert "log_offset" not in message_polars_schema(TRADES)
    assert "commit_sequence" not in message_polars_schema(TRADES)


def test_prices_hold_28_digits_of_which_12_are_decimals() -> None:
    price = polars_schema(TRADES)["price"]

    assert str(price) == "Decimal(precision=28, scale=12)"


def test_an_unknown_field_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        TRADES.field("absent")
