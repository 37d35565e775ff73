"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="K2_DATA_DIR",
        show_default=".k2",
        help="Directory of the platform that the command is for.",
    ),
]
"""The platform's data directory; None means K2_DATA_DIR or `.k2` in the working directory."""
