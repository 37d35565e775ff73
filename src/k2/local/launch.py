"""Replace this process by a component that ends when its supervisor ends: `launch.py PARENT NICE COMMAND...`.

Run as a script before every component: only the process itself can ask the kernel (Linux) to be killed together
with its parent, and asking between fork and exec is not safe in a parent with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to `PARENT`, then become `COMMAND`."""
    parent, niceness, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the supervisor ended before the component could start")
    if int(niceness):
        os.nice(int(niceness))
    try:
        os.execv(command[0], command)  # noqa: S606  # the point of this module
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
