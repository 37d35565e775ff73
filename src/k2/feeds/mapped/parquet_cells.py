"""Reads a Parquet file in blocks of rows: the columns that a mapping names, with the types that they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from k2.common.errors import ConfigurationError
from k2.feeds.mapped.making import BROKEN, LINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from k2.feeds.mapped.files import Digest
    from k2.feeds.mapped.mapping import FileMapping

_DIGEST_BYTES: Final = 4 * 2**20


class ParquetCells:
    """One Parquet file; a row's number counts from 1."""

    def __init__(self, path: Path, mapping: FileMapping, rows_max: int) -> None:
        self._path = path
        self._mapping = mapping
        self._rows_max = rows_max

    def read(self, digest: Digest) -> Iterator[pl.DataFrame]:
        """Yield the cells of the rows, block by block; the digest has seen all bytes in the end.

        Raises:
            ConfigurationError: the file cannot be read, or has no column that the mapping names.
        """
        try:
            with self._path.open("rb") as stream:
                while content := stream.read(_DIGEST_BYTES):
                    digest.update(content)
                stream.seek(0)
                file = pq.ParquetFile(stream)
                self._require(file.schema_arrow.names)
                first = 1
                for batch in file.iter_batches(self._rows_max, columns=list(self._mapping.names)):
                    if batch.num_rows:
                        yield self._cells(batch, first)
                    first += batch.num_rows
        except OSError as error:
            raise ConfigurationError(f"cannot read {self._path}: {error.strerror or error}") from error
        except pa.ArrowInvalid as error:
            raise ConfigurationError(f"expected a Parquet file in {self._path}, found none: {error}") from error

    def _cells(self, batch: pa.RecordBatch, first: int) -> pl.DataFrame:
        numbers = pl.int_range(first, first + batch.num_rows, dtype=pl.Int64, eager=True)
        columns = [pl.Series(name, batch.column(name)) for name in self._mapping.names]
        return pl.DataFrame([numbers.alias(LINE), *columns]).with_columns(pl.lit(None, pl.Int32).alias(BROKEN))

    def _require(self, names: Sequence[str]) -> None:
        if self._mapping.csv is not None:
            raise ConfigurationError(
                f"expected no csv section in {self._mapping.path}, found one: {self._path} is Parquet; remove it"
            )
        missing = [name for name in self._mapping.names if name not in names]
        if missing:
            raise ConfigurationError(
                f"expected the columns {', '.join(map(repr, missing))} of {self._mapping.path} in {self._path}, found "
                f"{', '.join(map(repr, names))}: mend the mapping's columns"
            )
