"""Every setting is read by the code: one that nobody reads would promise what nothing does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from k2.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = Path(__file__).parents[2] / "src" / "k2"


def names_in(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from names_in(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_setting_is_read_somewhere() -> None:
    code = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    names = list(names_in(Settings))

    unread = [name for name in names if not re.search(rf"\.{name.rpartition('.')[2]}\b", code)]

    assert len(names) > 50
    assert unread == []
