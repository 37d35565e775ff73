"""Supervision, with components that are one line of Python and no Java."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from dataclasses import dataclass, field

import pytest

from k2.common.clock import SystemClock
from k2.common.errors import K2Error, UnavailableError
from k2.local.component import Command, State, UnhealthyError
from k2.local.layout import DataDirectory
from k2.local.ports import PortBook, is_free
from k2.local.processes import identify
from k2.local.settings import LocalSettings
from k2.local.supervisor import Supervisor

CLOCK = SystemClock()
RUN = "import time; time.sleep(60)"
QUICK = LocalSettings(
    restart_pause_seconds=0.01,
    restart_pause_seconds_max=0.02,
    check_seconds=0.05,
    failing_after_deaths=3,
    stop_seconds_max=2,
    start_seconds_max=10,
    unhealthy_after_checks=1,
    hung_seconds=0.3,
)


@dataclass
class Toy:
    """A component whose program is a line of Python, healthy while `well`."""

    name: str
    code: str = RUN
    needs: tuple[str, ...] = ()
    stop_rank: int = 1
    port_names: tuple[str, ...] = ()
    may_finish: bool = False
    well: bool = True
    started: list[int] = field(default_factory=list)
    retried: int = 0
    error: K2Error | None = None

    def install(self, _progress):
        if self.error:
            raise self.error

    def command(self, site):
        self.started.append(CLOCK.time_ns())
        code = self.code.replace("PORT", str(site.ports.get(self.port_names[0]) if self.port_names else 0))
        return Command((sys.executable, "-S", "-c", code), site.directory.root)

    def check(self, *_, **__):
        if not self.well:
            raise UnhealthyError("not well")

    def after_start(self, *_, **__):
        pass

    def before_retry(self):
        self.retried += 1

    def address(self, _site):
        return ""

    def endpoints(self, _site):
        return {}


class Run:
    """A supervisor, the changes it told, and ways to wait for one."""

    def __init__(self, tmp_path, *toys, settings=QUICK):
        self.directory = DataDirectory(tmp_path / "data")
        self.directory.root.mkdir()
        self.changes = []
        self.ports = PortBook(tmp_path / "ports", fixed={}, remembered={})
        self.supervisor = Supervisor(toys, self.directory, self.ports, settings, CLOCK, self.changes.append)

    def wait(self, name, condition):
        deadline = CLOCK.monotonic() + 10
        while not condition(self.status(name)):
            assert CLOCK.monotonic() < deadline, self.status(name)
            CLOCK.sleep(0.01)
        return self.status(name)

    def status(self, name):
        return next(status for status in self.supervisor.statuses() if status.name == name)


@pytest.fixture
def run(tmp_path):
    runs = []

    def start(*toys, settings=QUICK, ready=True):
        runs.append(Run(tmp_path, *toys, settings=settings))
        runs[-1].supervisor.start()
        if ready:
            assert runs[-1].supervisor.wait_ready(threading.Event())
        return runs[-1]

    yield start
    for one in runs:
        one.supervisor.stop()
        one.ports.close()


def test_a_component_starts_once_what_it_needs_is_healthy(run):
    first, second = Toy("first"), Toy("second", needs=("first",))

    started = run(second, first)

    healthy = [c.name for c in started.changes if c.state is State.HEALTHY]
    assert healthy == ["first", "second"]
    assert second.started > first.started


def test_what_dies_is_started_again(run):
    started = run(Toy("a"))
    before = started.status("a").process

    started.supervisor.signal("a", signal.SIGKILL)

    after = started.wait("a", lambda s: s.restarts == 1 and s.state is State.HEALTHY).process
    assert after.pid != before.pid


def test_what_keeps_dying_is_failing_and_is_not_started_in_a_tight_loop(run):
    settings = QUICK.model_copy(
        update={"restart_pause_seconds": 30.0, "restart_pause_seconds_max": 30.0, "failing_after_deaths": 2}
    )
    toy = Toy("a", code="raise SystemExit('no licence')", well=False)

    started = run(toy, settings=settings, ready=False)

    with pytest.raises(UnavailableError, match=r"(?s)a ended while it started \(exit code 1\).*no licence"):
        started.supervisor.wait_ready(threading.Event())
    assert len(toy.started) == 2
    assert toy.retried == 2


def test_what_does_not_answer_for_long_is_killed_and_started_again(run):
    toy = Toy("a")
    started = run(toy)

    toy.well = False
    started.wait("a", lambda s: s.state is State.UNHEALTHY)
    started.wait("a", lambda s: s.restarts >= 1)
    toy.well = True

    assert started.wait("a", lambda s: s.state is State.HEALTHY).restarts >= 1


def test_what_is_unhealthy_because_of_its_needs_is_left_alone(run):
    first, second = Toy("first"), Toy("second", needs=("first",))
    patient = QUICK.model_copy(update={"hung_seconds": 0.5})
    started = run(first, second, settings=patient)

    first.well = second.well = False
    started.wait("first", lambda s: s.restarts >= 1)

    assert started.status("second").restarts == 0


def test_work_that_is_done_is_finished_and_not_started_again(run):
    toy = Toy("a", code="pass", may_finish=True, well=False)

    started = run(toy)

    assert started.status("a").state is State.FINISHED
    assert len(toy.started) == 1


def test_components_end_in_the_order_of_their_ranks(run):
    started = run(Toy("broker", stop_rank=3), Toy("worker", stop_rank=1), Toy("registry", stop_rank=2))

    started.supervisor.stop()

    ended = [c.name for c in started.changes if c.state is State.STOPPED]
    assert ended == ["worker", "registry", "broker"]


def test_nothing_is_left_running_after_a_stop(run):
    started = run(Toy("a"), Toy("b"))
    processes = [status.process for status in started.supervisor.statuses()]

    started.supervisor.stop()

    assert [identify(process.pid) for process in processes] == [None, None]


def test_a_start_can_be_cancelled(run):
    started = run(Toy("a", well=False), ready=False)
    cancelled = threading.Event()
    cancelled.set()

    assert not started.supervisor.wait_ready(cancelled)


def test_a_failed_installation_ends_the_start_with_its_own_error(run):
    started = run(Toy("a", error=UnavailableError("no network", dependency="x")), ready=False)

    with pytest.raises(UnavailableError, match="no network"):
        started.supervisor.wait_ready(threading.Event())


def test_a_stop_interrupts_a_download(run):
    class Endless(Toy):
        def install(self, progress):
            while True:
                progress(1, 2)
                CLOCK.sleep(0.01)

    started = run(Endless("a"), ready=False)
    started.wait("a", lambda s: s.state is State.DOWNLOADING)

    started.supervisor.stop()

    assert started.status("a").state is State.STOPPED


LISTEN = "import socket,time; s=socket.socket(); s.bind(('127.0.0.1', PORT)); s.listen(); time.sleep(60)"


def test_a_port_lost_to_a_stranger_before_the_first_start_is_replaced(run, tmp_path):
    with socket.socket() as stranger:
        port = next(p for p in range(20000, 30000) if is_free(p))
        toy = Toy("a", code=LISTEN, port_names=("api",))
        one = Run(tmp_path, toy)
        one.ports = PortBook(tmp_path / "ports", fixed={}, remembered={"api": port})
        one.supervisor = Supervisor((toy,), one.directory, one.ports, QUICK, CLOCK, one.changes.append)
        one.ports.take("api")
        stranger.bind(("127.0.0.1", port))
        stranger.listen()

        one.supervisor.start()
        try:
            assert one.supervisor.wait_ready(threading.Event())
            assert one.status("a").ports["api"] != port
        finally:
            one.supervisor.stop()
            one.ports.close()
