"""Reads a CSV file in blocks of lines, as columns of texts: a record a line, whatever is in it, and its number kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import ConfigurationError
from k2.feeds.line_blocks import read_blocks
from k2.feeds.mapped.making import BROKEN, CONTENT, DEFECTS, LINE
from k2.feeds.mapped.mapping import CsvForm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from k2.feeds.line_blocks import LineBlock
    from k2.feeds.mapped.files import Digest
    from k2.feeds.mapped.mapping import FileMapping

CELLS: Final = "k2.cells"
_TEXT: Final = "k2.text"
_NOT_TEXT, _QUOTING, _WRONG_COLUMNS = range(len(DEFECTS))


class CsvCells:
    """One CSV file as its mapping says that it is written; lines that are empty hold no record."""

    def __init__(self, path: Path, mapping: FileMapping, block_bytes: int) -> None:
        self._path = path
        self._mapping = mapping
        self._form = mapping.csv or CsvForm()
        self._block_bytes = block_bytes

    def read(self, digest: Digest) -> Iterator[pl.DataFrame]:
        """Yield the cells of the lines, block by block; the digest has seen all bytes in the end.

        Raises:
            ConfigurationError: the file cannot be read, or has no column that the mapping names.
        """
        names: Sequence[str] | None = None if self._form.header else self._form.names
        for block in read_blocks(self._path, self._block_bytes):
            digest.update(block.content)
            lines = lines_of(block)
            if names is None:
                names = self._header(lines)
                lines = lines[1:]
            elif block.first == 1:
                self._require(names, "names of the mapping's csv")
            yield self._cells(lines, names)

    def _header(self, lines: pl.DataFrame) -> Sequence[str]:
        names = self._split_header(lines)
        self._require(names, "header")
        return names

    def _split_header(self, lines: pl.DataFrame) -> list[str]:
        split = split_lines(lines[:1], self._form.delimiter)
        if split[BROKEN].item() is not None:
            raise ConfigurationError(
                f"expected a header in the first line of {self._path}, found {lines[CONTENT][0][:120]!r}: is it a CSV "
                "file in UTF-8? Where it has no header, say so in the mapping (csv: header: false, names: [...])"
            )
        names: list[str] = split[CELLS].item().to_list()
        return names

    def _require(self, names: Sequence[str], where: str) -> None:
        missing = [name for name in self._mapping.names if name not in names]
        if missing:
            raise ConfigurationError(
                f"expected the columns {', '.join(map(repr, missing))} of {self._mapping.path} in {self._path}, found "
                f"{', '.join(map(repr, names))} ({where}): mend the mapping's columns or its delimiter "
                f"({self._form.delimiter!r})"
            )
        twice = [name for name in self._mapping.names if list(names).count(name) > 1]
        if twice:
            raise ConfigurationError(
                f"expected each column once in {self._path}, found {', '.join(map(repr, twice))} several times "
                f"({where}): rename one of them in the file"
            )

    def _cells(self, lines: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        split = split_lines(lines.filter(pl.col(CONTENT).bin.size() > 0), self._form.delimiter)
        wrong = (pl.col(CELLS).list.len() != len(names)) & pl.col(BROKEN).is_null()
        return split.select(
            LINE,
            CONTENT,
            pl.when(wrong).then(pl.lit(_WRONG_COLUMNS, pl.Int32)).otherwise(pl.col(BROKEN)).alias(BROKEN),
            *(
                pl.col(CELLS).list.get(list(names).index(name), null_on_oob=True).alias(name)
                for name in self._mapping.names
            ),
        )


def lines_of(block: LineBlock) -> pl.DataFrame:
    """Return a block's lines: as bytes, as text where they are text, with their numbers."""
    try:
        text = pl.Series(_TEXT, [block.body.decode()], dtype=pl.String).str.split("\n").explode().str.strip_suffix("\r")
        content = text.cast(pl.Binary)
    except UnicodeDecodeError:
        lines = block.lines
        content = pl.Series(lines, dtype=pl.Binary)
        text = pl.Series([_text_or_none(line) for line in lines], dtype=pl.String)
    numbers = pl.int_range(block.first, block.first + block.count, dtype=pl.Int64, eager=True)
    return pl.DataFrame([numbers.alias(LINE), content.alias(CONTENT), text.alias(_TEXT)])


def _text_or_none(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def split_lines(lines: pl.DataFrame, delimiter: str) -> pl.DataFrame:
    """Return lines with their cells, and what is broken of a line that has none."""
    text = pl.col(_TEXT)
    if not lines.select(text.str.contains('"', literal=True).any()).item():
        broken = pl.when(text.is_null()).then(pl.lit(_NOT_TEXT, pl.Int32))
        return lines.with_columns(broken.alias(BROKEN), text.str.split(delimiter).alias(CELLS))
    mark = rf"\x{{{ord(delimiter):x}}}"
    cell = rf'{mark}(?:"(?:[^"]|"")*"|[^"{mark}]*)'
    led = pl.concat_str(pl.lit(delimiter), text)
    unsplit = (
        pl.when(text.is_null())
        .then(pl.lit(_NOT_TEXT, pl.Int32))
        .when(~led.str.contains(rf"^(?:{cell})*$"))
        .then(pl.lit(_QUOTING, pl.Int32))
    )
    found = pl.element().str.slice(1)
    inner = found.str.slice(1).str.head(-1).str.replace_all('""', '"', literal=True)
    bare = pl.when(found.str.starts_with('"')).then(inner).otherwise(found)
    return lines.with_columns(unsplit.alias(BROKEN), led.str.extract_all(cell).list.eval(bare).alias(CELLS))
