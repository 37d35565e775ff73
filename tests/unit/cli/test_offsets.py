"""`k2 offsets`: a plan is shown and written, applied only when somebody says yes, and refused where it does not fit."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from k2.bootstrap import operations
from k2.cli.main import app
from k2.common.errors import ConfigurationError, FencedError
from k2.testing.local_lake import TOPIC
from k2.testing.offset_world import OffsetWorld

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from k2.ingestion.offset_plans import OffsetPlanner
    from k2.settings import Settings


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OffsetWorld]:
    """A world whose planner the commands find in place of one on a broker."""
    world = OffsetWorld(tmp_path).create()

    @contextmanager
    def planner(_: Settings) -> Iterator[OffsetPlanner]:
        yield world.planner

    monkeypatch.setattr(operations, "offset_planner", planner)
    yield world
    world.close()


def run(world: OffsetWorld, *words: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["offsets", *words, "--data-dir", str(world.directory)], input=typed)


def plan(world: OffsetWorld, to: str) -> str:
    path = str(world.directory / "a.plan.json")
    planned = run(world, "plan", TOPIC, "--to", to, "--partition", "0", "--output", path)
    assert planned.exit_code == 0, planned.output
    return path


def test_a_plan_says_what_it_costs_and_changes_nothing(world: OffsetWorld) -> None:
    path = str(world.directory / "a.plan.json")

    planned = run(world, "plan", TOPIC, "--to", "7", "--partition", "0", "--output", path)

    assert "12 rows and 1 dead letters of offsets 7 to 19 are taken out" in planned.output
    assert f"k2 offsets apply {path}" in planned.output
    assert world.seam() == 20


def test_a_plan_is_applied_once_and_says_so_the_second_time(world: OffsetWorld) -> None:
    path = plan(world, "7")

    first, second = run(world, "apply", path, "--yes"), run(world, "apply", path, "--yes")

    assert "then run k2 verify" in first.output
    assert "had been applied before" in second.output
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert world.seam() == 7
    assert world.audit().is_sound


@pytest.mark.parametrize(("typed", "exit_code", "seam"), [("y\n", 0, 7), ("n\n", 1, 20), ("", 1, 20)])
def test_it_asks_before_it_does_anything(world: OffsetWorld, typed: str, exit_code: int, seam: int) -> None:
    path = plan(world, "7")

    applied = run(world, "apply", path, typed=typed)

    assert "are taken out" in applied.output
    assert (applied.exit_code, world.seam()) == (exit_code, seam)


def test_a_plan_that_something_has_overtaken_is_refused(world: OffsetWorld) -> None:
    path = plan(world, "7")
    world.world.ingest(20, 22, bad=[])

    refused = run(world, "apply", path, "--yes")

    assert isinstance(refused.exception, FencedError)
    assert "planned 20, now 22" in str(refused.exception)
    assert world.seam() == 22


@pytest.mark.parametrize("text", [None, "{}", '{"v": 99}', "no JSON"])
def test_a_file_that_is_no_plan_is_refused(world: OffsetWorld, text: str | None) -> None:
    path = world.directory / "b.plan.json"
    if text is not None:
        path.write_text(text)

    refused = run(world, "apply", str(path), "--yes")

    assert isinstance(refused.exception, ConfigurationError)
    assert world.seam() == 20


def test_seams_are_shown_with_what_the_log_holds(world: OffsetWorld) -> None:
    shown = json.loads(run(world, "show", "--json").output)["partitions"]

    assert [(one["partition"], one["seam"], one["log_end"]) for one in shown] == [(0, 20, 30), (1, 0, 0)]
    assert "10 offsets to ingest" in run(world, "show").output
