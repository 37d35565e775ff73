"""Prometheus metrics of one process: defined in one place each, rendered for `/metrics`, with no global registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX: Final = "k2_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_GAUGE_UNITS: Final = (
    "_seconds", "_bytes", "_ratio", "_records", "_rows", "_files", "_snapshots", "_manifests", "_info", "_level",
    "_failures", "_sequence", "_streams",
)  # fmt: skip


class Metrics:
    """The metrics of one process; names begin with `k2_`, labels have few values."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """Define what only grows; its name ends in `_total`."""
        return Counter(_checked(name, ("_total",)), documentation, labels, registry=self._registry)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """Define what goes up and down; its name ends in its unit."""
        return Gauge(_checked(name, _GAUGE_UNITS), documentation, labels, registry=self._registry)

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, buckets: Sequence[float]
    ) -> Histogram:
        """Define what has a distribution; its name ends in its unit."""
        return Histogram(
            _checked(name, _GAUGE_UNITS), documentation, labels, buckets=tuple(buckets), registry=self._registry
        )

    def render(self) -> bytes:
        """Return all values in Prometheus' text format, of CONTENT_TYPE."""
        return generate_latest(self._registry)


def _checked(name: str, endings: Sequence[str]) -> str:
    if not name.startswith(PREFIX) or not name.endswith(tuple(endings)):
        raise ValueError(f"expected a metric called {PREFIX}... that ends in {' or '.join(endings)}, found {name!r}")
    return name
