"""The composition root of what DuckDB needs to read an object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.query.object_store import S3Access
    from k2.storage.settings import CatalogSettings


def object_store(catalog: CatalogSettings) -> S3Access:
    """Return where the catalog's files are, if that is an object store, and by whose right they are read."""
    from k2.query.object_store import S3Access

    return S3Access(
        endpoint=catalog.s3_endpoint,
        region=catalog.s3_region,
        access_key_id=catalog.s3_access_key_id,
        secret_access_key=catalog.s3_secret_access_key.get_secret_value(),
        session_token=catalog.s3_session_token.get_secret_value(),
        timeout_seconds=catalog.request_timeout_seconds,
    )
