"""The releases of a platform in memory: asked for and heard of at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.common.announcing import ReleaseRequest


class FakeReleases:
    """Both ends: people ask and list, workers hear."""

    def __init__(self) -> None:
        self.requests: list[ReleaseRequest] = []

    def ask(self, request: ReleaseRequest) -> None:
        """Keep the request."""
        self.requests.append(request)

    def asked(self, requests_max: int) -> Sequence[ReleaseRequest]:
        """Return the newest requests, oldest first."""
        return self.requests[-requests_max:]

    def is_released(self, table: str, log_id: int, partition: int, since: int) -> bool:
        """Say whether the stream of a partition that is halted since an offset was let go on."""
        wanted = (table, log_id, partition, since)
        return any((each.table, each.log_id, each.partition, each.since) == wanted for each in self.requests)
