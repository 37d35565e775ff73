"""Finds records that came twice under other coordinates: the same source and source_sequence at two places in the log.

The log holds both, so coordinates alone do not show it: two machines that import one file at once, or a feed that is
played again. A record's exchange and event time follow from its source, so both copies lie in one partition of the
table, and each is looked at by itself; one of many rows is split by hash, so that memory is bounded by `rows_max`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from k2.query.scan import files_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from k2.query.scan import Scanner
    from k2.schemas.records import RecordType
    from k2.storage.planning import PlannedFile

_KEYED: Final = (
    "SELECT hash(exchange, symbol, source, source_sequence, action) AS fingerprint, * FROM {source} "
    "WHERE fingerprint % $parts::UBIGINT = $part::UBIGINT"
)
"""Without the casts DuckDB divides in 128 bits, which took minutes where this takes a second."""
_SUSPECTS: Final = "SELECT fingerprint FROM ({keyed}) GROUP BY fingerprint HAVING count(*) > 1"
_REPEATED: Final = (
    "SELECT log_id, log_partition, count(*) AS records FROM ("
    "SELECT log_id, log_partition, row_number() OVER ("
    "PARTITION BY fingerprint, symbol, source_sequence ORDER BY log_id, log_partition, log_offset) AS place FROM ("
    "SELECT DISTINCT fingerprint, symbol, source_sequence, log_id, log_partition, log_offset "
    "FROM ({keyed}) SEMI JOIN suspects USING (fingerprint))) WHERE place > 1 GROUP BY ALL"
)


def repeated_records(
    scanner: Scanner,
    record_type: RecordType,
    files: Iterable[PlannedFile],
    *,
    rows_max: int,
    check_time: Callable[[], None],
) -> Counter[tuple[int, int]]:
    """Count, by log id and partition, the records beyond the first of each source and source_sequence.

    Rows that share a coordinate are one record here. `check_time` is called before each pass, and may raise.
    """
    found: Counter[tuple[int, int]] = Counter()
    keyed = _KEYED.format(source=files_source(record_type))
    for paths, rows in _groups(files, rows_max):
        parts = -(-rows // rows_max)
        for part in range(parts):
            check_time()
            values = {"parts": parts, "part": part}
            suspects = scanner.fetch(_SUSPECTS.format(keyed=keyed), values, files=paths)
            if not len(suspects):
                continue
            again = scanner.fetch(_REPEATED.format(keyed=keyed), values, files=paths, tables={"suspects": suspects})
            for row in again.to_pylist():
                found[row["log_id"], row["log_partition"]] += row["records"]
    return found


def _groups(files: Iterable[PlannedFile], rows_max: int) -> Iterator[tuple[list[str], int]]:
    """Gather whole partitions of the table, several small ones at a time, with their number of rows."""
    partitions: dict[str, list[PlannedFile]] = defaultdict(list)
    for file in files:
        partitions[file.partition].append(file)
    paths: list[str] = []
    rows = 0
    for name in sorted(partitions):
        size = sum(file.rows for file in partitions[name])
        if paths and rows + size > rows_max:
            yield paths, rows
            paths, rows = [], 0
        paths += [file.path for file in partitions[name]]
        rows += size
    if rows:
        yield paths, rows
