"""Every dashboard names metrics and labels that the product exposes, and no others."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from k2.common.metrics import Metrics
from k2.ingestion.metrics import IngestMetrics
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

DASHBOARDS = sorted((Path(__file__).parents[2] / "config" / "grafana").glob("*.json"))
OF_PROMETHEUS = {"job", "instance"}
NAME = re.compile(r"\bk2_[a-z0-9_]+")
LABELS = re.compile(r"\{([^}]*)\}|by \(([^)]*)\)")


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Return the labels of each metric of a worker, by its name, as the registry has them."""
    metrics = Metrics()
    IngestMetrics(metrics, clock=ManualClock())
    found = {}
    for collector in metrics._registry._collector_to_names:
        labels = set(getattr(collector, "_labelnames", ()))
        found |= dict.fromkeys(metrics._registry._collector_to_names[collector], labels)
    return found


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]


def labels_of(expression: str, legend: str) -> set[str]:
    named = [part for found in LABELS.findall(expression) for part in ",".join(found).split(",") if part.strip()]
    shown = re.findall(r"\{\{(\w+)\}\}", legend)
    return {re.split(r"[=!]", part)[0].strip() for part in named} | set(shown)


def test_there_is_a_dashboard_of_overload() -> None:
    assert "overload.json" in [path.name for path in DASHBOARDS]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_each_metric_and_label_that_a_dashboard_names_is_exposed(path: Path, exposed: dict[str, set[str]]) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    asked = list(expressions(dashboard))
    queries = json.dumps(dashboard["templating"])

    names = {name for expression, _ in asked for name in NAME.findall(expression)} | set(NAME.findall(queries))
    wrong = [
        (expression, label)
        for expression, legend in asked
        for label in labels_of(expression, legend)
        if label not in OF_PROMETHEUS.union(*(exposed.get(name, set()) for name in NAME.findall(expression)))
    ]

    assert asked
    assert names - exposed.keys() == set()
    assert wrong == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_two_panels_of_a_dashboard_lie_on_one_another(path: Path) -> None:
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    places = [panel["gridPos"] for panel in panels]

    overlapping = [
        (one, other)
        for one, other in itertools.combinations(places, 2)
        if one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    ]

    assert overlapping == []
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(place["x"] + place["w"] <= 24 for place in places)
