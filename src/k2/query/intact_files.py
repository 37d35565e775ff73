"""Runs statements over the data files that are what was written, and names the others.

DuckDB does not look at the checksums of Parquet's pages, and reads many a flipped bit as if it had been written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k2.common.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pyarrow as pa

    from k2.query.scan import Scanner
    from k2.storage.file_checks import FileChecks
    from k2.storage.planning import PlannedFile


class IntactFiles:
    """A scanner that never gives DuckDB a file known to be damaged. Threads may share it."""

    def __init__(self, scanner: Scanner, checks: FileChecks) -> None:
        self._scanner = scanner
        self._checks = checks

    def paths(self, files: Iterable[PlannedFile], on_damage: Callable[[CorruptionError], None]) -> list[str]:
        """Return the paths of the files that are intact; `on_damage` is told of the others, and may raise."""
        return self._checks.paths(files, on_damage)

    def fetch(
        self,
        sql: str,
        values: Mapping[str, Any],
        files: Iterable[PlannedFile],
        on_damage: Callable[[CorruptionError], None],
        *,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> pa.Table | None:
        """Run a statement over the files that are intact, and over tables in memory; None where there are no files.

        See `Scanner.fetch`.

        A file that DuckDB finds damaged (one with no checksum recorded) is told of and left out likewise.
        """
        planned = {file.path: file for file in files}
        paths = self.paths(planned.values(), on_damage)
        while paths:
            try:
                return self._scanner.fetch(sql, values, files=paths, tables=tables)
            except CorruptionError as error:
                if error.path not in paths:
                    raise
                on_damage(error)
                self._checks.condemn(error.path, error)
                paths.remove(error.path)
        return None

    @property
    def damaged(self) -> dict[str, str]:
        """What is known to be damaged, by path, and how."""
        return self._checks.damaged
