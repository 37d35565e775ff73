"""The first question to a platform whose market is streaming in: asked by itself, with the command that asks it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import typer

from k2.cli.console import program
from k2.cli.platform_view import data_dir_option

if TYPE_CHECKING:
    import threading

    from k2.common.clock import Clock
    from k2.local.layout import DataDirectory

_WAIT_SECONDS_MAX: Final = 20.0
_ANSWER_SECONDS_MAX: Final = 60.0
_PAUSE_SECONDS: Final = 0.25


def show_first_answer(
    directory: DataDirectory, api: str, clock: Clock, *, began: float, stop: threading.Event | None = None
) -> None:
    """Wait for the market's first trade, ask for trades of the busiest symbol, and print how long that took."""
    deadline = clock.monotonic() + _WAIT_SECONDS_MAX
    found = None
    while found is None and clock.monotonic() < deadline and not (stop and stop.is_set()):
        found = first_symbol(api, directory.key_file.read_text(encoding="utf-8").strip())
        if found is None:
            clock.sleep(_PAUSE_SECONDS)
    if found is None:
        typer.echo("No trade has come in yet; ask with `k2 symbols` which symbols there are.")
        return
    exchange, symbol = found
    words = ["trades", symbol, "--exchange", exchange, "--window", "10s", "--anchor", "latest", "--limit", "3"]
    typer.echo(f"$ {program()} {' '.join(words)}{data_dir_option(directory)}")
    # In a process of its own, since answering loads Arrow, and this process stays.
    command = [sys.executable, "-m", "k2.cli.main", *words, "--data-dir", str(directory.root)]
    sys.stdout.flush()
    try:
        asked = subprocess.run(command, timeout=_ANSWER_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        typer.echo(f"No answer within {_ANSWER_SECONDS_MAX:.0f} s; see `k2 logs api`.")
        return
    if asked.returncode == 0:
        typer.echo(f"The first exact answer came {clock.monotonic() - began:.1f} s after the start.\n")


def first_symbol(api: str, key: str) -> tuple[str, str] | None:
    """Return exchange and symbol of the simulated trades with the most rows; None while there are none."""
    where = urlsplit(api)
    connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=5)
    try:
        connection.request("GET", "/v1/symbols?data_type=trades&exchange=sim", headers={"X-API-Key": key})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            return None
        rows: list[dict[str, Any]] = json.loads(text)["data"]
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()
    best = max(rows, key=lambda row: (row["rows"], row["symbol"]), default=None)
    return None if best is None else (str(best["exchange"]), str(best["symbol"]))
