"""The query side that starts before what it depends on: it says what is missing, and becomes ready by itself."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from k2 import bootstrap
from k2.api.readiness import reasons_not_ready
from k2.common.errors import UnavailableError
from k2.local.ports import HOST
from k2.query.request import QueryRequest
from k2.settings import load_settings

REQUEST = QueryRequest(data_type="trades", symbol="BHP")


class Door:
    """A port that leads to another one, once it is opened."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind((HOST, 0))
        self.port = self._listener.getsockname()[1]

    def open(self, port: int) -> None:
        """Begin to pass connections on to `port`."""
        self._listener.listen()
        threading.Thread(target=self._accept, args=(port,), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self, port: int) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection((HOST, port))
            except OSError:
                return
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with target, source:
        while received := _received(source):
            target.sendall(received)


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


@contextmanager
def query_side(settings):
    side = bootstrap.query_side(settings)
    side.start()
    try:
        yield side
    finally:
        side.stop()


def wait_for_reasons(side, fits, seconds=60.0):
    deadline = bootstrap.system_clock().monotonic() + seconds
    while not fits(reasons := " ".join(reasons_not_ready(side.tail))):
        assert bootstrap.system_clock().monotonic() < deadline, reasons
        bootstrap.system_clock().sleep(0.05)
    return reasons


@pytest.fixture
def doors():
    both = Door(), Door()
    yield both
    for door in both:
        door.close()


@pytest.fixture
def settings(tmp_path, doors, monkeypatch):
    """Settings that lead to a broker and a registry behind doors, and to a catalog whose directory is not there."""
    kafka, registry = doors
    monkeypatch.setenv("K2_KAFKA__BOOTSTRAP_SERVERS", f"{HOST}:{kafka.port}")
    monkeypatch.setenv("K2_KAFKA__REGISTRY_URL", f"http://{HOST}:{registry.port}/apis/ccompat/v7")
    monkeypatch.setenv("K2_KAFKA__REQUEST_TIMEOUT_SECONDS", "1")
    monkeypatch.setenv("K2_QUERY__TAIL_REFRESH_SECONDS", "0.2")
    return load_settings(tmp_path / "absent")


def test_with_everything_down_it_starts_says_why_and_refuses_questions(settings):
    with query_side(settings) as side:
        without_catalog = wait_for_reasons(side, lambda reasons: "catalog" in reasons)
        with pytest.raises(UnavailableError, match="catalog"):
            side.engine.query(REQUEST)

        settings.data_dir.mkdir()
        without_broker = wait_for_reasons(side, lambda reasons: "catalog" not in reasons)

    assert "unable to open database file" in without_catalog
    assert "K2_KAFKA__BOOTSTRAP_SERVERS" in without_broker


@pytest.mark.platform
def test_it_becomes_ready_and_answers_once_they_are_up(settings, doors, kafka_settings):
    kafka, registry = doors
    with query_side(settings) as side:
        wait_for_reasons(side, lambda reasons: "catalog" in reasons)
        settings.data_dir.mkdir()
        kafka.open(int(kafka_settings.bootstrap_servers.rpartition(":")[2]))
        registry.open(urlsplit(kafka_settings.registry_url).port)

        wait_for_reasons(side, lambda reasons: not reasons)

        assert side.engine.query(REQUEST).certificate.complete
