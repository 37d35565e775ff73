"""The README's Python lines, run as they stand, against the API in this process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.client import client as client_module
from k2.common.clock import SystemClock
from k2.testing.fake_engine import FakeEngine
from k2.testing.market_rows import market_rows

README = Path(__file__).parents[3] / "README.md"


def test_the_python_lines_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    engine = FakeEngine({"trades": market_rows(range(100), symbols=("SIM0001",))})
    app = create_app(engine, key=ApiKey("key"), settings=ApiSettings(), clock=SystemClock(), unready=list)
    (tmp_path / ".k2").mkdir()
    (tmp_path / ".k2" / "api-key").write_text("key\n")
    monkeypatch.chdir(tmp_path)

    with TestClient(app) as server:
        connected = httpx2.Client

        def connect(**given: Any) -> httpx2.Client:
            return connected(**{**given, "transport": server._transport})

        monkeypatch.setattr(client_module.httpx2, "Client", connect)
        for block in blocks:
            exec(compile(block, str(README), "exec"), {})

    assert len(blocks) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "100 True"
