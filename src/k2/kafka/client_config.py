"""Makes the librdkafka properties that every client shares, out of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k2.common.logging import get_logger

if TYPE_CHECKING:
    from k2.kafka.settings import KafkaSettings

log = get_logger(__name__)

Properties = dict[str, Any]
"""librdkafka properties: texts, numbers, flags and callbacks."""


def common_properties(settings: KafkaSettings, *, client_id: str) -> Properties:
    """Return the properties of any client: addresses, security, time limits, and logging through K2's log."""
    request_ms = int(settings.request_timeout_seconds * 1000)
    return {
        "bootstrap.servers": settings.brokers,
        "client.id": client_id,
        "socket.timeout.ms": min(max(request_ms, 10), 300_000),
        "socket.connection.setup.timeout.ms": min(max(request_ms, 1000), 30_000),
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 3,
        "log.connection.close": False,
        "logger": _Logger(client_id),
    } | {name: value.get_secret_value() for name, value in settings.client_properties.items()}


class _Logger:
    """Takes librdkafka's log lines, which are for diagnosis only: what matters arrives as an error too."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id

    def log(self, _level: int, template: str, *values: object) -> None:
        log.debug("librdkafka", client_id=self._client_id, text=template % values if values else template)

    @property
    def handlers(self) -> list[object]:
        return []
