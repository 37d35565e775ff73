"""The supervisor of a detached platform: `python -m k2.local DATA_DIR COMPONENTS SETTINGS SIMULATOR_ARGUMENTS`.

`k2 up --detach` starts it; it runs until SIGTERM.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import TYPE_CHECKING

from k2.common.errors import K2Error
from k2.local.platform import LocalPlatform
from k2.local.settings import LocalSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXIT_ERROR = 2


def main(arguments: Sequence[str]) -> int:
    """Run the platform until a signal asks for its end; return the exit code."""
    data_dir, components, settings, simulator_arguments = arguments
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        platform = LocalPlatform(
            data_dir,
            components=components.split(","),
            settings=LocalSettings.model_validate_json(settings),
            simulator_arguments=tuple(json.loads(simulator_arguments)),
            observe=lambda status: print(status.name, status.state, status.detail, flush=True),  # noqa: T201  # its log
        )
        if platform.start(stop):
            stop.wait()
            platform.stop()
    except K2Error as error:
        sys.stderr.write(f"k2: {error}\n")
        return _EXIT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
