"""A TCP proxy that delays, cuts, falls silent or loses replies: a network that cannot be trusted."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from k2.common.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from k2.common.clock import Clock

_CHUNK_BYTES: Final = 65_536
_HOST: Final = "127.0.0.1"
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class NetworkFault:
    """What happens to bytes on their way; the default is nothing.

    `silent` keeps connections open and passes nothing on (half-open); `drop_replies` passes requests on and swallows
    what comes back; `cut` closes connections, old ones and new ones; `cut_after_bytes` closes one in mid-message, after
    so many bytes of its reply.
    """

    delay_seconds: float = 0.0
    silent: bool = False
    drop_replies: bool = False
    cut: bool = False
    cut_after_bytes: int | None = None


HEALTHY: Final = NetworkFault()


class FaultProxy:
    """Listens on loopback and passes bytes on to a port; `fault` may be changed at any time."""

    def __init__(self, target_port: int, *, clock: Clock | None = None) -> None:
        self._target = (_HOST, target_port)
        self._clock = clock or SystemClock()
        self._fault = HEALTHY
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((_HOST, 0))
        self._listener.settimeout(_LOOK_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.bytes_dropped = 0

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything."""
        self._stop.set()
        self._close_all()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def fault(self) -> NetworkFault:
        """What happens to bytes now."""
        return self._fault

    @fault.setter
    def fault(self, fault: NetworkFault) -> None:
        self._fault = fault
        if fault.cut:
            self._close_all()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            if self._fault.cut:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            self._spawn(self._pass_on, client, server, False)
            self._spawn(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        """Pass bytes one way until either side ends; what is held back meanwhile comes when the fault is over."""
        source.settimeout(_LOOK_SECONDS)
        passed = 0
        with contextlib.suppress(OSError):
            while not self._stop.is_set():
                try:
                    data = source.recv(_CHUNK_BYTES)
                except TimeoutError:
                    continue
                if not data:
                    break
                passed = self._send(data, sink, passed, is_reply=is_reply)
        self._close(source, sink)

    def _send(self, data: bytes, sink: socket.socket, passed: int, *, is_reply: bool) -> int:
        """Send data with the fault of this moment; return how many bytes have passed; OSError ends the connection."""
        if self._fault.delay_seconds:
            self._clock.sleep(self._fault.delay_seconds)
        while self._fault.silent and not self._stop.wait(_LOOK_SECONDS):
            pass
        fault = self._fault
        if is_reply and fault.drop_replies:
            self.bytes_dropped += len(data)
            return passed
        if is_reply and fault.cut_after_bytes is not None and passed + len(data) >= fault.cut_after_bytes:
            sink.sendall(data[: max(0, fault.cut_after_bytes - passed)])
            raise ConnectionAbortedError("cut in mid-message")
        sink.sendall(data)
        return passed + len(data)

    def _close_all(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        self._close(*sockets)

    def _close(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._sockets.difference_update(sockets)
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="fault-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()
