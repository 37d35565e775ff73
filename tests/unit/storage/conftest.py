"""Fixtures of the storage tests: a lake in a directory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.testing.local_lake import LocalLake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[LocalLake]:
    lake = LocalLake(tmp_path).create()
    yield lake
    lake.close()
