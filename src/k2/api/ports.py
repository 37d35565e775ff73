"""What the API asks of a query engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    import polars as pl

    from k2.query.bars.request import BarsRequest
    from k2.query.certificate import AsOf
    from k2.query.live.follower import Advance, Ends
    from k2.query.request import Answer, QueryRequest, SymbolSummary
    from k2.storage.named_snapshots import KeptSnapshot
    from k2.storage.seam import LogPartition


class Follows(Protocol):
    """What gives the newest rows of one data type; one thread at a time uses it."""

    @property
    def trouble(self) -> str | None:
        """Return why nothing comes now; None while it follows."""
        ...

    def jump(self) -> None:
        """Go on from the log's end: nobody has followed meanwhile."""
        ...

    def check_exchange(self, exchange: str | None) -> None:
        """See that there is such an exchange; QueryError if not."""
        ...

    def ends(self, exchange: str | None) -> Ends:
        """Return where it stands; UnavailableError where that cannot be told now."""
        ...

    def prefix(self, exchange: str | None) -> AsOf:
        """Return the prefix of the log up to where it stands."""
        ...

    def homes(self, symbols: Collection[str]) -> frozenset[LogPartition]:
        """Return the partitions in which the records of these symbols lie."""
        ...

    def known_commit(self) -> int:
        """Return the newest commit that is seen to lie below where it stands."""
        ...

    def step(self, symbols: Collection[str]) -> Advance:
        """Return what has come of these symbols since the last step."""
        ...


class AnswersStreams(Protocol):
    """What streams ask; several threads use it at once."""

    def query(self, request: QueryRequest) -> Answer:
        """Answer a question."""
        ...

    def live(self, data_type: str) -> Follows:
        """Return what follows the newest rows of a data type."""
        ...

    def bars(self, request: BarsRequest) -> Answer:
        """Answer a question about bars."""
        ...

    @property
    def bar_settle_ns(self) -> int:
        """Return how long after its end a bar may change."""
        ...


class Engine(AnswersStreams, Protocol):
    """What answers questions; several threads use it at once."""

    def symbols(
        self, exchange: str | None = None, data_type: str | None = None, *, read_rows_max: int | None = None
    ) -> list[SymbolSummary]:
        """Return the symbols that there are; ReadLimitError where more rows than that would have to be read."""
        ...

    def gaps(
        self,
        *,
        symbol: str | None = None,
        exchange: str | None = None,
        since_ns: int | None = None,
        read_rows_max: int | None = None,
    ) -> pl.DataFrame:
        """Return one row a gap, the newest first; ReadLimitError where more rows than that would have to be read."""
        ...

    def snapshots(self, data_type: str | None = None) -> list[KeptSnapshot]:
        """Return the snapshots that the tables still have, each table's newest first."""
        ...

    def get_stats(self) -> dict[str, Any]:
        """Return what the engine has done and holds."""
        ...
