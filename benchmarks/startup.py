"""The whole platform from its commands: first and warm start, and memory by process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Figure

GOAL_START_SECONDS = 10
GOAL_MEMORY_MIB = 1_400
MEBIBYTE = 2**20


def measure(*, quick: bool) -> list[Figure]:
    """Start, stop and start again in a new directory; downloads are not part of it when the cache holds them."""
    with tempfile.TemporaryDirectory() as directory:
        first = _seconds(directory, "up", "--detach")
        time.sleep(5 if quick else 45)
        _seconds(directory, "down")
        warm = _seconds(directory, "up", "--detach")
        time.sleep(5 if quick else 30)
        components = _status(directory)["components"]
        _seconds(directory, "down")
    memory = {entry["name"]: (entry["memory_bytes"] or 0) / MEBIBYTE for entry in components}
    total = sum(memory.values())
    return [
        Figure("first start of a data directory, to ready", first, "s"),
        Figure("warm start to ready", warm, "s", f"{GOAL_START_SECONDS} or less", warm <= GOAL_START_SECONDS),
        *(Figure(f"memory, idle: {name}", mebibytes, "MiB") for name, mebibytes in memory.items()),
        Figure("memory, idle: everything", total, "MiB", f"{GOAL_MEMORY_MIB} or less", total <= GOAL_MEMORY_MIB),
    ]


def _seconds(directory: str, *arguments: str) -> float:
    began = time.perf_counter()
    _run(directory, *arguments)
    return time.perf_counter() - began


def _status(directory: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_run(directory, "status", "--json"))
    return found


def _run(directory: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "k2.cli.main", *arguments, "--data-dir", str(Path(directory) / "data")]
    return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=True).stdout
