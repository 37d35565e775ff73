"""Rows of one partition with what tells them apart."""

from __future__ import annotations

from functools import cached_property

import polars as pl

from k2.ingestion.duplicates.seen_sequences import Numbered
from k2.schemas.identity import identity_hash


class Named:
    """Rows that have an identity: what tells them apart, each part made when it is first asked for.

    Most batches climb from number to number; nothing in them can be a duplicate, and no identity is hashed.
    """

    def __init__(self, identified: pl.DataFrame) -> None:
        self.rows = identified
        self.by_number = identified["sequence"].is_not_null()

    @cached_property
    def numbered(self) -> Numbered:
        """Those that have a number."""
        return Numbered(self.rows.filter(self.by_number))

    @cached_property
    def keys(self) -> pl.Series:
        """The hash of each identity."""
        return identity_hash(self.rows)

    def repeated(self) -> pl.Series:
        """Say of each row whether its identity may be there twice."""
        if self.by_number.all() and not self.numbered.repeats:
            return pl.repeat(value=False, n=self.rows.height, eager=True)
        return self.keys.is_duplicated()

    def those(self, wanted: pl.Series) -> pl.DataFrame:
        """Return some of the rows, with the hash of each identity."""
        return self.rows.with_columns(self.keys).filter(wanted)
