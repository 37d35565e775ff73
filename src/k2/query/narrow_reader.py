"""Reads one symbol's rows out of a few local files with Polars, for about half of what DuckDB spends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from k2.query.merging import within
from k2.schemas.arrow import polars_schema
from k2.schemas.records import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from k2.query.request import QueryRequest
    from k2.query.settings import QuerySettings
    from k2.schemas.records import RecordType
    from k2.storage.planning import PlannedFile

_LEGACY: Final = pl.CompatLevel.oldest()


class NarrowReader:
    """Answers what is surely small, and declines the rest: DuckDB has limits of memory and time, Polars has none.

    Columns are found by name, which K2 never changes; a column that a file is too old for is null.
    """

    def __init__(self, settings: QuerySettings) -> None:
        self._bytes_max = settings.narrow_bytes_max
        self._rows_max = settings.narrow_rows_max

    def accepts(self, request: QueryRequest, files: Iterable[PlannedFile]) -> bool:
        """Say whether a question is of the kind that is read here: no page of a longer answer, and little to read."""
        if request.limit is not None or request.as_of is not None or request.known_at_ns is not None:
            return False
        files = tuple(files)
        local = all("://" not in file.path for file in files)
        return local and sum(file.size_bytes for file in files) <= self._bytes_max

    def read(
        self,
        request: QueryRequest,
        record_type: RecordType,
        paths: Sequence[str],
        names: Sequence[str],
        *,
        start_ns: int | None,
        end_ns: int | None,
        ordered: bool,
    ) -> pa.Table | None:
        """Return the rows that match, in order if asked; None where DuckDB is to read: too many rows, or a bad file."""
        rows = pl.scan_parquet(
            list(paths), schema=polars_schema(record_type), missing_columns="insert", extra_columns="ignore", glob=False
        ).filter(pl.col("symbol") == request.symbol)
        if request.exchange is not None:
            rows = rows.filter(pl.col("exchange") == request.exchange)
        rows = within(rows, request, start_ns, end_ns).select(names).head(self._rows_max + 1)
        rows = rows.sort(ORDER) if ordered else rows
        try:
            found = rows.collect()
        except (pl.exceptions.PolarsError, OSError):
            return None
        except BaseException as error:
            # What Polars does not expect of a damaged file, it panics at; the class derives from BaseException and
            # cannot be imported.
            if type(error).__name__ == "PanicException":
                return None
            raise
        if found.height > self._rows_max:
            return None
        return found.to_arrow(compat_level=_LEGACY)
