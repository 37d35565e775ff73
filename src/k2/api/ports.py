"""What the API asks of a query engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import polars as pl

    from k2.query.bars.request import BarsRequest
    from k2.query.request import Answer, QueryRequest, SymbolSummary
    from k2.storage.named_snapshots import KeptSnapshot


class Engine(Protocol):
    """What answers questions; several threads use it at once."""

    def query(self, request: QueryRequest) -> Answer:
        """Answer a question."""
        ...

    def bars(self, request: BarsRequest) -> Answer:
        """Answer a question about bars."""
        ...

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
