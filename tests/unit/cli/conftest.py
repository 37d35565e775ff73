"""What each test of a command is kept from: the logs and signals that it sets up for a whole process."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from k2 import bootstrap

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what a command sets up for a whole process away from the other tests."""
    monkeypatch.setattr(bootstrap, "start_process", lambda *_arguments, **_named: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
