"""Follows the rows of a `FakeEngine`, whose log is one partition; what is added to them comes at the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import QueryError
from k2.query.certificate import AsOf
from k2.query.kafka_tail import COMMIT_COLUMNS
from k2.query.live.follower import Advance, Ends, Span
from k2.schemas.arrow import polars_schema
from k2.schemas.records import ORDER, RECORD_TYPES
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from k2.common.errors import K2Error

ONLY: Final = LogPartition(0, 0)


class FakeFollower:
    """Stands at an offset of the rows of one data type. `fails_with` is raised by `ends`, while it is set."""

    def __init__(self, data_type: str, rows: Mapping[str, pl.DataFrame]) -> None:
        self._data_type = data_type
        self._rows = rows
        self._at = 0
        self.trouble: str | None = None
        self.fails_with: K2Error | None = None

    def jump(self) -> None:
        """Go on from the end."""
        self._at = self._end()

    def check_exchange(self, exchange: str | None) -> None:
        """Know the exchange `sim` alone."""
        if exchange not in (None, "sim"):
            raise QueryError(f"expected an exchange of topics.yaml (sim), found {exchange!r}")

    def ends(self, _exchange: str | None) -> Ends:
        """Return where it stands."""
        if self.fails_with is not None:
            raise self.fails_with
        return Ends({ONLY: Span("sim", 0, self._at, self._at)}, 1)

    def prefix(self, exchange: str | None) -> AsOf:
        """Return the prefix up to there."""
        return AsOf(self._data_type, exchange, 1, ((0, 0, 0, self._at),))

    def homes(self, _symbols: Collection[str]) -> frozenset[LogPartition]:
        """Return the only partition."""
        return frozenset({ONLY})

    def known_commit(self) -> int:
        """Return the only commit."""
        return 1

    def step(self, symbols: Collection[str]) -> Advance:
        """Return the rows of the symbols that were added since."""
        start, self._at = self._at, max(self._at, self._end())
        rows = self._held().filter(
            pl.col("log_offset").is_between(start, self._at, closed="left"), pl.col("symbol").is_in(list(symbols))
        )
        spans = {ONLY: Span("sim", 0, start, self._at)} if self._at > start else {}
        return Advance(spans, rows.drop(COMMIT_COLUMNS).sort(*ORDER))

    def _held(self) -> pl.DataFrame:
        empty = pl.DataFrame(schema=polars_schema(RECORD_TYPES[self._data_type]))
        return self._rows.get(self._data_type, empty)

    def _end(self) -> int:
        highest = self._held()["log_offset"].max()
        return highest + 1 if isinstance(highest, int) else 0
