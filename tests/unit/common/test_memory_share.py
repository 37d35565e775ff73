"""Memory is this process's own, against its own limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.common.memory_share import ProcessMemory, control_group_limit_bytes, resident_bytes_now
from k2.testing.manual_clock import ManualClock


def group(root: Path, line: str, limits: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line + "\n")
    for path, text in limits.items():
        (root / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / path).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("line", "limits", "expected"),
    [
        ("0::/a/b", {"a/b/memory.max": "1000", "a/memory.max": "max"}, 1_000),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "500"}, 500),
        ("0::/", {"memory.max": "700"}, 700),
        ("0::/a", {"a/memory.max": "max"}, None),
        ("0::/gone", {"memory.max": "300"}, 300),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "800"}, 800),
        ("4:cpu,memory:/a", {"memory/a/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("5:cpuset:/a", {"memory/a/memory.limit_in_bytes": "800"}, None),
        ("nonsense", {}, None),
    ],
)
def test_the_limit_is_the_least_of_the_control_group_and_those_above(
    tmp_path: Path, line: str, limits: dict[str, str], expected: int | None
) -> None:
    assert control_group_limit_bytes(group(tmp_path, line, limits)) == expected


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert control_group_limit_bytes(tmp_path) is None


def test_memory_is_measured_once_an_interval() -> None:
    clock, sizes = ManualClock(), iter([50, 80, 90])
    memory = ProcessMemory(limit_bytes=200, interval_seconds=1, clock=clock, resident_bytes=lambda: next(sizes))

    measured = []
    for _ in range(5):
        measured.append(memory.percent())
        clock.advance(0.5)

    assert measured == [25, 25, 40, 40, 45]


def test_without_a_limit_memory_decides_nothing() -> None:
    memory = ProcessMemory(limit_bytes=None, interval_seconds=1, clock=ManualClock())

    assert memory.percent() == 0


def test_the_resident_set_of_this_process_is_found() -> None:
    assert resident_bytes_now() > 1_000_000
