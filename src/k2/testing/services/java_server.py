"""A server process in Java, for tests: small heap, one collector thread, no options of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.local.java import JavaProgram, command, find_java
from k2.testing.services.server import Server

if TYPE_CHECKING:
    from pathlib import Path


def java_server(name: str, home: Path, directory: Path, main: str, arguments: tuple[str, ...], port: int) -> Server:
    """Return a server, not started, that runs `main` with the jars in `home`."""
    options = (
        "-Xmx192m",
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
    )
    program = JavaProgram(options, tuple(sorted(home.glob("*.jar"))), main, arguments)
    return Server(name, command(find_java(), program, directory / f"{name}.args"), directory, port)
