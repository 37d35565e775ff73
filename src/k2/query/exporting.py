"""Writes answers as Parquet files by exchange and day, whole or not at all: the directory appears when all is in it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.common.errors import ConfigurationError
from k2.common.units import NS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from k2.query.settings import QuerySettings

SUMMARY_FILE: Final = "_k2_export.json"
CERTIFICATES_FILE: Final = "_k2_certificates.jsonl"
"""Names with an underscore: readers of a directory pass such files over."""
VERSION: Final = 1


class HiveExport:
    """One export on its way: a hidden directory beside the target, which takes the target's name at the end.

    Use it as a context manager: what is not finished is removed. Rows of one answer come in order of time.
    """

    def __init__(self, target: Path, question: dict[str, Any], settings: QuerySettings, *, overwrite: bool) -> None:
        """Begin; `question` is what the summary says was asked.

        Raises:
            ConfigurationError: the target holds something and may not be overwritten, or cannot be written.
        """
        self._target = target.absolute()
        self._question = question
        self._settings = settings
        self._require_free(overwrite=overwrite)
        self._writers: dict[tuple[str, str], pq.ParquetWriter] = {}
        self._waiting: dict[tuple[str, str], list[pa.Table]] = {}
        self._waiting_rows = 0
        self._parts: dict[tuple[str, str], int] = {}
        self.rows = 0
        self.files = 0
        self._answers = self._incomplete = 0
        try:
            made = tempfile.mkdtemp(prefix=f".{self._target.name}.", suffix=".part", dir=self._target.parent)
        except OSError as error:
            raise self._not_written(error) from error
        self._directory = Path(made)
        self._certificates = (self._directory / CERTIFICATES_FILE).open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._certificates.close()
        if self._directory.exists():
            shutil.rmtree(self._directory, ignore_errors=True)

    def add(self, table: pa.Table) -> None:
        """Take some rows of an answer; they are written once there are enough of them."""
        for exchange in pc.unique(table["exchange"]).to_pylist():
            mine = table.filter(pc.equal(table["exchange"], exchange)).drop_columns("exchange")
            for day, rows in _by_day(mine):
                self._waiting.setdefault((exchange, day), []).append(rows)
        self._waiting_rows += table.num_rows
        self.rows += table.num_rows
        if self._waiting_rows >= self._settings.export_rows_max:
            self._write()

    def certify(self, certificate: dict[str, Any]) -> None:
        """Keep the certificate of an answer whose rows were all added."""
        self._answers += 1
        self._incomplete += not certificate["complete"]
        try:
            self._certificates.write(json.dumps(certificate, separators=(",", ":")) + "\n")
        except OSError as error:
            raise self._not_written(error) from error

    def finish(self) -> dict[str, Any]:
        """Write the rest, put the directory in its place, and return the summary."""
        try:
            self._write()
            for key in list(self._writers):
                self._close(key)
            summary = {
                "v": VERSION,
                "question": self._question,
                "rows": self.rows,
                "files": self.files,
                "answers": self._answers,
                "complete": self._incomplete == 0,
                "incomplete_answers": self._incomplete,
            }
            self._certificates.close()
            (self._directory / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            for path in self._directory.rglob("*"):
                _sync(path)
            _sync(self._directory)
            self._directory.chmod(0o755)
            self._put_in_place()
        except OSError as error:
            raise self._not_written(error) from error
        return summary

    def _require_free(self, *, overwrite: bool) -> None:
        target = self._target
        if not target.parent.is_dir():
            raise ConfigurationError(f"expected the directory above {target} to exist, found none: make it")
        if target.is_dir() and not any(target.iterdir()):
            return
        if not target.exists():
            return
        if not overwrite:
            raise ConfigurationError(
                f"expected no directory or an empty one at {target}, found something: name another, or --overwrite"
            )
        if not (target / SUMMARY_FILE).is_file():
            raise ConfigurationError(
                f"expected an earlier export at {target} to overwrite, found something else (no {SUMMARY_FILE}): it is "
                "left as it is; name another directory"
            )

    def _put_in_place(self) -> None:
        old = None
        if self._target.exists() and any(self._target.iterdir()):
            old = self._directory.with_suffix(".old")
            self._target.rename(old)
        self._directory.rename(self._target)  # also over an empty directory
        _sync(self._target.parent)
        if old is not None:
            shutil.rmtree(old)

    def _write(self) -> None:
        try:
            for key in sorted(self._waiting):
                self._writer(key, self._waiting[key][0].schema).write_table(pa.concat_tables(self._waiting[key]))
        except OSError as error:
            raise self._not_written(error) from error
        self._waiting, self._waiting_rows = {}, 0

    def _writer(self, key: tuple[str, str], schema: pa.Schema) -> pq.ParquetWriter:
        found = self._writers.pop(key, None)
        if found is None:
            if len(self._writers) >= self._settings.export_files_open_max:
                self._close(next(iter(self._writers)))
            exchange, day = key
            directory = self._directory / f"exchange={exchange}" / f"date={day}"
            directory.mkdir(parents=True, exist_ok=True)
            part = self._parts.get(key, 0)
            self._parts[key] = part + 1
            self.files += 1
            found = pq.ParquetWriter(directory / f"part-{part:05}.parquet", schema, compression="zstd")
        self._writers[key] = found  # the last one used is the last one closed
        return found

    def _close(self, key: tuple[str, str]) -> None:
        self._writers.pop(key).close()

    def _not_written(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"cannot write {self._target}: {error.strerror or error}; free space, or name another directory"
        )


def _by_day(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each UTC day of the event; they come in order of time."""
    days = table["ts_event_ns"].to_numpy() // NS_PER_DAY
    starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], table.num_rows], strict=True):
        yield str(np.datetime64(int(days[start]), "D")), table.slice(start, end - start)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
