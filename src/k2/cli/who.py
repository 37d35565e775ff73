"""Who runs a command, for the audit of what people ask a platform to do."""

from __future__ import annotations


def who() -> str:
    """Return the user of this process, and the machine."""
    import os
    import platform
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"{name}@{platform.node()}"
