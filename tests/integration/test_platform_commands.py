"""`k2 up`, `down`, `status`, `logs`, `reset` as a person types them, with Valkey as the only component."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from k2.common.clock import SystemClock
from k2.local.description import read_description
from k2.local.layout import DataDirectory
from k2.local.processes import still_runs

pytestmark = pytest.mark.platform

CLOCK = SystemClock()
PROGRAM = """
import sys, typer
from k2.cli import platform
from k2.common.errors import K2Error
app = typer.Typer(pretty_exceptions_enable=False)
platform.register(app)
try:
    app()
except K2Error as error:
    sys.exit(f"k2: {error}")
"""


def _words(directory: DataDirectory, *arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments, "--data-dir", str(directory.root)]


def _k2(directory: DataDirectory, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_words(directory, *arguments), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def directory(tmp_path):
    directory = DataDirectory.at(tmp_path / "data")
    yield directory
    _k2(directory, "down")


@pytest.fixture
def running(directory):
    assert _k2(directory, "up", "--detach", "--only", "valkey").returncode == 0
    return directory


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_in_order(directory, number):
    with subprocess.Popen(_words(directory, "up", "--only", "valkey"), stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("State:"):
                break
        description = read_description(directory)
        assert description is not None

        up.send_signal(number)
        rest = up.communicate(timeout=30)[0]

    assert up.returncode == 0
    assert "stopped; the state stays" in rest
    assert not any(still_runs(c.process) for c in description.components if c.process)


def test_status_lists_each_component_and_succeeds_while_all_are_healthy(running):
    result = _k2(running, "status", "--json")

    report = json.loads(result.stdout)
    (component,) = report["components"]
    assert result.returncode == 0
    assert (component["name"], component["health"]) == ("valkey", "healthy")
    assert component["pid"] > 0
    assert component["memory_bytes"] > 0
    assert component["address"].startswith("redis://127.0.0.1:")


def test_status_fails_and_says_how_to_start_while_nothing_runs(directory):
    text, as_json = _k2(directory, "status"), _k2(directory, "status", "--json")

    assert (text.returncode, as_json.returncode) == (1, 1)
    assert "nothing runs on" in text.stdout
    assert "k2 up --data-dir" in text.stdout
    assert json.loads(as_json.stdout)["running"] is False


def test_a_second_up_is_refused_with_the_process_that_runs(running):
    result = _k2(running, "up", "--only", "valkey")

    assert result.returncode != 0
    assert "already runs" in result.stderr
    assert "k2 down" in result.stderr


def test_down_ends_it_and_a_second_down_says_so(running):
    first, second = _k2(running, "down"), _k2(running, "down")

    assert "ended; the state stays" in first.stdout
    assert "nothing runs" in second.stdout
    assert (first.returncode, second.returncode) == (0, 0)


def test_logs_print_the_end_of_a_components_log(running):
    assert "Ready to accept connections" in _k2(running, "logs", "valkey").stdout
    assert "found these: supervisor, valkey" in _k2(running, "logs", "kafak").stderr


def test_a_port_in_use_that_was_asked_for_is_refused(directory):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]

        result = _k2(directory, "up", "--detach", "--only", "valkey", "--port", f"valkey={port}")

    assert result.returncode != 0
    assert f"port {port} for valkey is in use" in result.stderr


def test_reset_asks_and_refuses_while_the_platform_runs(running):
    refused = _k2(running, "reset", "--yes")
    _k2(running, "down")
    unanswered = _k2(running, "reset")
    kept = running.root.exists()
    _k2(running, "reset", "--yes")

    assert "already runs" in refused.stderr
    assert unanswered.returncode != 0
    assert kept
    assert not running.root.exists()


def test_a_damaged_description_is_one_clear_error_and_heals_at_the_next_start(directory):
    assert _k2(directory, "up", "--detach", "--only", "valkey").returncode == 0
    _k2(directory, "down")
    directory.platform_file.write_text("{")

    damaged = _k2(directory, "status")
    again = _k2(directory, "up", "--detach", "--only", "valkey")

    assert "platform.json" in damaged.stderr
    assert again.returncode == 0
