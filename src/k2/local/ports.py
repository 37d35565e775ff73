"""Which port each component listens on: as asked for, else as last time, else the usual, else the next free."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import TYPE_CHECKING, Final

from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

HOST: Final = "127.0.0.1"
USUAL: Final[Mapping[str, int]] = {
    "kafka": 9092,
    "kafka-controller": 9093,
    "registry": 8081,
    "registry-management": 9000,
    "valkey": 6379,
    "api": 8000,
    "worker": 9308,
    "upkeep": 9309,
}
_STEP: Final = 10
_TRIES: Final = 200


def candidates(usual: int, remembered: int | None) -> Iterator[int]:
    """Yield the ports to try in order; the last one first, so that a restart keeps its addresses."""
    if remembered is not None:
        yield remembered
    yield from (port for port in range(usual, min(usual + _STEP * _TRIES, 65536), _STEP) if port != remembered)


def is_free(port: int) -> bool:
    """Say whether nothing listens on the port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class PortBook:
    """The ports of one platform, each held by a lock file against the other platforms of this user.

    A process of somebody else can still take a port between the probe and the component's own bind; the
    supervisor then asks for the port again with `replace`.
    """

    def __init__(
        self,
        lock_dir: Path,
        *,
        fixed: Mapping[str, int],
        remembered: Mapping[str, int],
        free: Callable[[int], bool] = is_free,
    ) -> None:
        unknown = sorted(set(fixed) - set(USUAL))
        if unknown:
            raise ConfigurationError(f"unknown port name {unknown[0]!r}: the known ones are {', '.join(USUAL)}")
        self._lock_dir = lock_dir
        self._fixed = dict(fixed)
        self._remembered = dict(remembered)
        self._free = free
        self._held: dict[str, tuple[int, int]] = {}

    def take(self, name: str) -> int:
        """Return the port of `name`, held from now on until `close`.

        Raises:
            ConfigurationError: the port that was asked for is in use, or no port is free.
        """
        if name in self._held:
            return self._held[name][0]
        if name in self._fixed:
            return self._take_fixed(name)
        for port in candidates(USUAL[name], self._remembered.get(name)):
            if self._hold(name, port):
                return port
        raise ConfigurationError(
            f"expected a free port for {name} from {USUAL[name]} on, found none in {_TRIES} tries: "
            f"name one with --port {name}=N"
        )

    def replace(self, name: str) -> int:
        """Return another port for `name`, whose own was taken by a stranger before the component could bind it."""
        held = self._held.pop(name, None)
        if held is not None:
            os.close(held[1])
        if self._remembered.get(name) == (held or (None,))[0]:
            self._remembered.pop(name, None)
        return self.take(name)

    def ports(self) -> dict[str, int]:
        """Return the ports held, by name."""
        return {name: port for name, (port, _) in self._held.items()}

    def close(self) -> None:
        """Let go of every port."""
        for _, descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _take_fixed(self, name: str) -> int:
        port = self._fixed[name]
        if not 1 <= port <= 65535:  # noqa: PLR2004  # the range of TCP ports
            raise ConfigurationError(f"expected a port from 1 to 65535 for {name}, found {port}")
        if not self._hold(name, port):
            raise ConfigurationError(
                f"port {port} for {name} is in use: end what listens there (ss -ltnp 'sport = :{port}'), "
                f"or name another with --port {name}=N, or leave it out and K2 finds a free one"
            )
        return port

    def _hold(self, name: str, port: int) -> bool:
        self._lock_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock_dir / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        if not self._free(port):
            os.close(descriptor)
            return False
        self._held[name] = (port, descriptor)
        return True
