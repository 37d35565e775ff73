"""Lets one import at a time into a platform: two of the same file would each find nothing there, and double it.

The lock belongs to the process and ends with it, also by kill -9; the file stays and means nothing by itself. It
covers the imports that use one data directory, on one machine: run imports into a shared cluster from one place.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_NAME: Final = "import.lock"


@contextmanager
def import_lock(data_dir: Path) -> Iterator[None]:
    """Hold the platform's import lock.

    Raises:
        ConfigurationError: another import holds it (its process is named), or the directory cannot be written.
    """
    path = data_dir / FILE_NAME
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write the import lock {path}: {error.strerror}; check permissions") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "?"
            raise ConfigurationError(
                f"expected no other import into {data_dir}, found one running (process {holder}): "
                "wait for it to end; importing again then adds nothing twice"
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
