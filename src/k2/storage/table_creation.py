"""Creates the tables with the field ids of records.py, and adds the optional columns that it has grown since."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from pyiceberg.exceptions import TableAlreadyExistsError
from pyiceberg.partitioning import PARTITION_FIELD_ID_START
from pyiceberg.schema import Schema
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table.metadata import TableMetadataV2
from pyiceberg.table.update import AddSchemaUpdate, AssertCurrentSchemaId, AssertTableUUID, SetCurrentSchemaUpdate

from k2.common.errors import ConfigurationError
from k2.storage.file_io import SyncedFileIO
from k2.storage.iceberg_schema import iceberg_field, iceberg_schema, partition_spec, sort_order

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from k2.schemas.records import RecordType

RETRIES_PROPERTY: Final = "commit.retry.num-retries"
_PRUNED_COLUMNS: Final = (
    "exchange", "symbol", "ts_event_ns", "trading_date", "ts_event", "action", "source", "source_sequence",
    "log_id", "log_partition", "log_offset", "commit_sequence",
    "topic_id",
)  # fmt: skip
"""Columns with lower and upper bounds in the manifests; the others have counts only, which keeps planning fast."""


def table_properties(record_type: RecordType) -> dict[str, str]:
    """Return the properties of a new table."""
    bounds = {
        f"write.metadata.metrics.column.{field.name}": "full"
        for field in record_type.fields
        if field.name in _PRUNED_COLUMNS
    }
    return {
        RETRIES_PROPERTY: "0",
        "write.metadata.previous-versions-max": "100",
        "write.metadata.delete-after-commit.enabled": "true",
        "write.parquet.compression-codec": "zstd",
        "write.metadata.metrics.default": "counts",
        **bounds,
    }


def create_table(catalog: Catalog, identifier: str, record_type: RecordType) -> bool:
    """Create the table unless it is there; say whether this call created it.

    The catalogs' own `create_table` numbers fields afresh, which would break the promise that an id never changes its
    meaning: so the first metadata is written here and registered.
    """
    schema = iceberg_schema(record_type)
    spec, order = partition_spec(record_type), sort_order(record_type)
    properties = table_properties(record_type)
    try:
        location = catalog.create_table_transaction(identifier, schema).table_metadata.location
    except TableAlreadyExistsError:  # a REST catalog looks already here
        return False
    metadata = TableMetadataV2(
        location=location,
        table_uuid=uuid.uuid4(),
        schemas=[schema],
        current_schema_id=schema.schema_id,
        last_column_id=schema.highest_field_id,
        partition_specs=[spec],
        default_spec_id=spec.spec_id,
        last_partition_id=max((field.field_id for field in spec.fields), default=PARTITION_FIELD_ID_START - 1),
        sort_orders=[order],
        default_sort_order_id=order.order_id,
        properties=properties,
    )
    path = f"{location}/metadata/00000-{uuid.uuid4()}.metadata.json"
    ToOutputFile.table_metadata(metadata, SyncedFileIO(catalog.properties).new_output(path))
    try:
        catalog.register_table(identifier, path)
    except TableAlreadyExistsError:
        return False
    return True


def evolve_table(catalog: Catalog, table: Table, record_type: RecordType) -> list[str]:
    """Add the optional columns that the table lacks; return their names.

    Raises:
        ConfigurationError: a column differs in id or type, or a column to add is not optional.
    """
    present = {field.name: field for field in table.schema().fields}
    identifier = ".".join(table.name())
    added = []
    for field in record_type.fields:
        expected, found = iceberg_field(field), present.get(field.name)
        if found is None:
            if not field.nullable:
                raise ConfigurationError(
                    f"the column {field.name!r} is new in {identifier} and required: only optional ones can be added"
                )
            added.append(expected)
        elif (found.field_id, found.field_type) != (expected.field_id, expected.field_type):
            raise ConfigurationError(
                f"expected the column {field.name!r} of {identifier} with id {expected.field_id} and type "
                f"{expected.field_type}, found id {found.field_id} and type {found.field_type}: another "
                "version of K2 made this table; set K2_CATALOG__WAREHOUSE and K2_CATALOG__URI to another place"
            )
    if added:
        schema = Schema(*table.schema().fields, *added, schema_id=max(table.schemas()) + 1)
        requirements = (
            AssertTableUUID(uuid=table.metadata.table_uuid),
            AssertCurrentSchemaId(current_schema_id=table.metadata.current_schema_id),
        )
        catalog.commit_table(
            table, requirements, (AddSchemaUpdate(schema_=schema), SetCurrentSchemaUpdate(schema_id=-1))
        )
    return [field.name for field in added]
