"""What another process sees of a platform and does with it."""

from __future__ import annotations

import os

import pytest

from k2.cli.platform_view import print_report, report_json
from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError
from k2.common.metrics import Metrics
from k2.ingestion.status_server import StatusServer
from k2.local import control
from k2.local.component import ComponentStatus, State
from k2.local.description import PlatformDescription, from_json, orphans, read_description, running_supervisor, to_json
from k2.local.layout import DataDirectory
from k2.local.processes import ProcessIdentity, identify
from k2.local.settings import LocalSettings
from k2.local.state_files import FileLock, claim, write_json

CLOCK = SystemClock()


@pytest.fixture
def directory(tmp_path):
    directory = DataDirectory(tmp_path / "data")
    claim(directory, free_bytes=1, free_bytes_min=0)
    return directory


def _component(process: ProcessIdentity | None) -> ComponentStatus:
    return ComponentStatus("kafka", State.HEALTHY, process=process, address="127.0.0.1:1", ports={"kafka": 1})


def test_a_description_survives_the_file(directory):
    description = PlatformDescription(identify(os.getpid()), "ready", (_component(identify(os.getpid())),), "")

    write_json(directory.platform_file, to_json(description))

    assert read_description(directory) == description


@pytest.mark.parametrize("values", [{}, {"supervisor": 1}, {"supervisor": None, "stage": "x", "components": [{}]}])
def test_a_strange_description_is_one_clear_error(values):
    with pytest.raises(ConfigurationError, match=r"platform\.json.*delete the file"):
        from_json(values, "platform.json")


def test_only_recorded_processes_that_are_the_same_are_orphans():
    own = identify(os.getpid())
    assert own is not None
    later = ProcessIdentity(own.pid, "an earlier boot/7", own.command)
    description = PlatformDescription(None, "ready", (_component(own), _component(later), _component(None)))

    assert orphans(description) == (own,)


def test_a_lock_file_of_an_earlier_boot_names_no_supervisor(directory):
    directory.lock.write_text(f"{os.getpid()} an-earlier-boot/7")

    assert running_supervisor(directory) is None


def test_a_second_start_is_refused_with_the_number_of_the_first(directory):
    own = identify(os.getpid())
    assert own is not None
    directory.lock.write_text(f"{own.pid} {own.started}")

    with pytest.raises(ConfigurationError, match=rf"already runs.*process {own.pid}"):
        control.refuse_second(directory)
    with pytest.raises(ConfigurationError, match="already runs"):
        control.reset(directory)


def test_nothing_runs_in_an_empty_directory(tmp_path):
    report = control.inspect(DataDirectory(tmp_path / "none"), LocalSettings(), CLOCK)

    assert (report.healthy, report.supervisor, report.components) == (False, None, ())


def test_ending_what_does_not_run_is_no_error(directory):
    assert not control.stop_running(directory, LocalSettings(), CLOCK)


def test_reset_deletes_the_state_and_keeps_the_settings_file(directory):
    directory.settings_file.write_text("")
    (directory.root / "warehouse").mkdir()
    outside = directory.root.parent / "outside"
    outside.mkdir()
    (directory.root / "link").symlink_to(outside)

    control.reset(directory)

    assert [path.name for path in directory.root.iterdir()] == ["k2.toml"]
    assert outside.is_dir()


def test_reset_removes_an_empty_directory(directory):
    control.reset(directory)

    assert not directory.root.exists()


def test_reset_refuses_a_directory_that_is_not_k2s(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(ConfigurationError, match="nothing was deleted"):
        control.reset(DataDirectory(tmp_path))
    assert (tmp_path / "thesis.tex").exists()


def test_reset_refuses_while_the_lock_is_held_whatever_the_lock_file_says(directory):
    (directory.root / "warehouse").mkdir()
    lock = FileLock(directory.lock)
    lock.acquire()
    directory.lock.write_text("garbage")

    with pytest.raises(ConfigurationError, match="already runs"):
        control.reset(directory)

    assert (directory.root / "warehouse").is_dir()
    lock.release()


def test_status_tells_what_keeps_a_component_that_lives_from_its_work(directory, capsys):
    own = identify(os.getpid())
    reasons = ["upkeep: 3 rounds in a row with problems: [disk] full"]
    server = StatusServer(
        "127.0.0.1", 0, metrics=Metrics(), unready=lambda: reasons, silent_seconds=lambda: 0.0, silent_seconds_max=1.0
    )
    server.start()
    status = ComponentStatus("upkeep", State.HEALTHY, process=own, ports={"upkeep": server.address[1]})
    write_json(directory.platform_file, to_json(PlatformDescription(own, "ready", (status,), "")))
    lock = FileLock(directory.lock)
    lock.acquire()
    lock.write(f"{own.pid} {own.started}\n")

    report = control.inspect(directory, LocalSettings(), CLOCK)

    lock.release()
    server.stop()
    (found,) = report.components
    assert (found.health, found.unready, report.healthy) == ("healthy", tuple(reasons), True)
    assert '"ready": false' in report_json(report, directory)
    print_report(report, directory)
    assert f"not ready: {reasons[0]}" in capsys.readouterr().out
