"""Processes that are the platform's own, and those that are not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from k2.common.clock import SystemClock
from k2.local.processes import ChildProcess, end_orphan, identify, is_same, listens_on

SLEEP = (sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-S",
    "-c",
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
)
CLOCK = SystemClock()


def _child(tmp_path, command=SLEEP):
    child = ChildProcess(command, directory=tmp_path, log=tmp_path / "log", env=None, nice=0)
    _wait(lambda: b"up" in (tmp_path / "log").read_bytes())
    return child


def _wait(condition):
    deadline = CLOCK.monotonic() + 10
    while not condition():
        assert CLOCK.monotonic() < deadline
        CLOCK.sleep(0.01)


@pytest.fixture
def child(tmp_path):
    child = _child(tmp_path)
    yield child
    child.end(CLOCK, grace_seconds=0)


def test_a_process_is_recognised_by_number_start_and_command(child):
    assert is_same(child.identity(), identify(child.pid))


@pytest.mark.parametrize("other", [{"started": "another boot/1"}, {"command": ("sshd",)}])
def test_another_process_with_the_same_number_is_never_taken_for_it(child, other):
    recorded = replace(child.identity(), **other)

    assert not is_same(recorded, identify(child.pid))
    assert not end_orphan(recorded, CLOCK, grace_seconds=1)
    assert child.exit_code() is None


def test_an_orphan_is_ended(child):
    assert end_orphan(child.identity(), CLOCK, grace_seconds=5)

    assert child.exit_code() == -signal.SIGTERM


def test_nobody_runs_under_the_number_of_a_process_that_ended(child):
    recorded = child.identity()
    child.end(CLOCK, grace_seconds=5)

    assert identify(recorded.pid) is None
    assert not end_orphan(recorded, CLOCK, grace_seconds=1)


def test_what_ignores_the_request_to_end_is_killed(tmp_path):
    child = _child(tmp_path, STUBBORN)

    assert child.end(CLOCK, grace_seconds=0.1) == -signal.SIGKILL


def test_a_program_that_does_not_exist_says_so_in_its_log(tmp_path):
    child = ChildProcess(("/no/such/program",), directory=tmp_path, log=tmp_path / "log", env=None, nice=0)
    _wait(lambda: child.exit_code() is not None)

    assert child.end(CLOCK, grace_seconds=0) == 1
    assert "cannot run /no/such/program: No such file" in (tmp_path / "log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_supervisor_takes_its_components_with_it(tmp_path):
    code = (
        "import sys, pathlib, time\n"
        "from k2.local.processes import ChildProcess\n"
        f"d = pathlib.Path({str(tmp_path)!r})\n"
        f"c = ChildProcess({SLEEP!r}, directory=d, log=d / 'log', env=None, nice=0)\n"
        "print(c.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        _wait(lambda: b"up" in (tmp_path / "log").read_bytes())

        supervisor.kill()

        _wait(lambda: identify(pid) is None)


def test_a_stranger_on_the_port_does_not_pass_for_the_component(child):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        assert listens_on(os.getpid(), port)
        assert not listens_on(child.pid, port)
