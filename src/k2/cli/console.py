"""What a person sees: consoles that cut nothing off, and how this command line is called from where they stand."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH: Final = 240
_NAME: Final = "k2"


def wide_console() -> Console:
    """Return a console whose tables take the width that they need: the terminal wraps a line, nothing is cut off."""
    from rich.console import Console

    return Console(width=_WIDTH, soft_wrap=True, highlight=False)


def program() -> str:
    """Return how this shell calls K2: `k2` where that leads here, else the path of the command."""
    own = Path(sys.executable).with_name(_NAME)
    found = shutil.which(_NAME)
    if not own.exists() or (found is not None and Path(found).samefile(own)):
        return _NAME
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)
