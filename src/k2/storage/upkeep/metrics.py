"""The metrics of upkeep, filled from the reports of its rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from k2.storage.upkeep.health import problems_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.common.clock import Clock
    from k2.common.metrics import Metrics

_GAUGES: Final = {
    "k2_table_rows": ("rows", "Rows of the table's head"),
    "k2_table_files": ("files", "Data files of the table's head"),
    "k2_table_small_files": ("small_files", "Data files of the table's head below the size that compaction aims at"),
    "k2_table_bytes": ("bytes", "Size of the data files of the table's head"),
    "k2_table_snapshots": ("snapshots", "Snapshots that the table keeps"),
    "k2_table_manifests": ("manifests", "Manifests of the table's head"),
}
_COUNTERS: Final = {
    "k2_upkeep_jobs_total": ("jobs", "Merges and compactions"),
    "k2_upkeep_files_replaced_total": ("files_replaced", "Data files replaced by merges and compactions"),
    "k2_upkeep_snapshots_expired_total": ("snapshots_expired", "Snapshots expired by upkeep"),
    "k2_upkeep_orphans_deleted_total": ("orphans_deleted", "Orphaned files deleted"),
    "k2_upkeep_orphans_deleted_bytes_total": ("orphan_bytes_deleted", "Size of the orphaned files deleted"),
}


class UpkeepMetrics:
    """What the rounds have found and done since this process began."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        table = ["table"]
        self._gauges = {key: metrics.gauge(name, text, table) for name, (key, text) in _GAUGES.items()}
        self._counters = {key: metrics.counter(name, text, table) for name, (key, text) in _COUNTERS.items()}
        self._orphans = metrics.gauge("k2_table_orphan_files", "Files that no snapshot names, at the last look", table)
        self._orphan_bytes = metrics.gauge("k2_table_orphan_bytes", "Size of the files that no snapshot names", table)
        self._problems = metrics.counter("k2_upkeep_problems_total", "Jobs that replaced nothing, by table", table)
        self._rounds = metrics.counter("k2_upkeep_rounds_total", "Rounds of upkeep", ["outcome"])
        self._failures = metrics.gauge("k2_upkeep_failures", "Rounds in a row that did not succeed")
        self._success = metrics.gauge(
            "k2_upkeep_last_success_seconds", "When a round last succeeded, seconds since 1970"
        )

    def record(self, report: Mapping[str, Any]) -> None:  # Any: a RoundReport as plain values
        """Take in the report of a round; only one without problems counts as a success."""
        for found in report["tables"]:
            name = found["table"]
            for key, gauge in self._gauges.items():
                gauge.labels(name).set(found["after"][key])
            for key, counter in self._counters.items():
                counter.labels(name).inc(found[key])
            if found["swept"]:
                self._orphans.labels(name).set(found["orphans"] - found["orphans_deleted"])
                self._orphan_bytes.labels(name).set(found["orphan_bytes"] - found["orphan_bytes_deleted"])
            self._problems.labels(name).inc(len(found["problems"]))
        self._count(sound=not problems_of(report))

    def failed(self) -> None:
        """Take in a round that ended without a report."""
        self._count(sound=False)

    def _count(self, *, sound: bool) -> None:
        self._rounds.labels("success" if sound else "failure").inc()
        if sound:
            self._failures.set(0)
            self._success.set(self._clock.time_ns() / 1e9)
        else:
            self._failures.inc()
