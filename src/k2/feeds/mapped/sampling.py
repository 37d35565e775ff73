"""Reads the first records of a file of which nothing is known yet: its kind, its delimiter, whether it has a header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from k2.common.errors import ConfigurationError
from k2.feeds.line_blocks import read_blocks
from k2.feeds.mapped.csv_cells import CELLS, lines_of, split_lines
from k2.feeds.mapped.making import BROKEN, CONTENT

if TYPE_CHECKING:
    from pathlib import Path

    from k2.feeds.settings import FeedSettings

RECORDS: Final = 10_000
_PARQUET: Final = b"PAR1"
_DELIMITERS: Final = ",\t;|"


@dataclass(frozen=True, slots=True)
class Sample:
    """The first records of a file. `csv` is what a mapping has to say of the form, None where there is nothing."""

    path: Path
    frame: pl.DataFrame
    csv: dict[str, Any] | None = None
    unsure: tuple[str, ...] = ()

    @property
    def has_names(self) -> bool:
        """Whether the file itself names its columns."""
        return self.csv is None or self.csv.get("header", True)


def sample_of(path: Path, settings: FeedSettings) -> Sample:
    """Read the first records of a CSV or Parquet file.

    Raises:
        ConfigurationError: it cannot be read, or is neither.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(_PARQUET)) != _PARQUET:
                return _csv(path, settings)
            stream.seek(0)
            batch = next(pq.ParquetFile(stream).iter_batches(min(RECORDS, settings.import_rows_max)), None)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except pa.ArrowInvalid as error:
        raise ConfigurationError(f"expected CSV or Parquet in {path}, found neither: {error}") from error
    if batch is None:
        raise ConfigurationError(f"expected records in {path}, found none")
    return Sample(path, pl.DataFrame([pl.Series(name, batch.column(name)) for name in batch.schema.names]))


def _csv(path: Path, settings: FeedSettings) -> Sample:
    block = next(read_blocks(path, settings.import_block_bytes), None)
    lines = None if block is None else lines_of(block).head(RECORDS + 1).filter(pl.col(CONTENT).bin.size() > 0)
    if lines is None or lines.is_empty():
        raise ConfigurationError(f"expected records in {path}, found none")
    delimiter, rows = _delimited(path, lines)
    header = rows[0]
    is_header = all(cell and not _is_number(cell) for cell in header) and len(set(header)) == len(header)
    names = header if is_header else [f"column_{number}" for number in range(1, len(header) + 1)]
    records = rows[1:] if is_header else rows
    if not records:
        raise ConfigurationError(f"expected records below the header of {path}, found none")
    said: dict[str, Any] = {} if delimiter == "," else {"delimiter": delimiter}
    if not is_header:
        said |= {"header": False, "names": names}
    unsure = () if is_header else ("there is no header: give the columns names, and map them",)
    frame = pl.DataFrame(records, schema=dict.fromkeys(names, pl.String), orient="row")
    return Sample(path, frame, said or None, unsure)


def _delimited(path: Path, lines: pl.DataFrame) -> tuple[str, list[list[str]]]:
    """Return the delimiter that gives most columns, and the lines that have as many as the first."""
    best: tuple[int, str, list[list[str]]] = (1, ",", [])
    for delimiter in _DELIMITERS:
        split = split_lines(lines, delimiter).filter(pl.col(BROKEN).is_null())
        rows: list[list[str]] = split[CELLS].to_list()
        alike = [row for row in rows if len(row) == len(rows[0])] if rows else []
        if alike and len(alike) * 2 > lines.height and len(alike[0]) > best[0]:
            best = (len(alike[0]), delimiter, alike)
    if not best[2]:
        raise ConfigurationError(
            f"expected columns divided by one of , tab ; | in {path}, found none: is it a CSV file in UTF-8?"
        )
    return best[1], best[2]


def _is_number(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdigit()
