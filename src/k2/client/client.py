"""A synchronous HTTP client of K2: Arrow tables with their certificates, errors as exceptions, pages joined."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import httpx2

from k2.client.errors import ApiUnavailableError, RefusedQuestionError, error_of, retry_after_seconds, unreachable
from k2.client.streaming import HEADERS, PATH, EventParser, StreamPlan
from k2.common.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    import pyarrow as pa

    from k2.client.streaming import ClientError, OnSlow, StreamEvent

CERTIFICATE_KEY: Final = b"k2.certificate"
CURSOR_KEY: Final = b"k2.next_cursor"
ARROW: Final = "application/vnd.apache.arrow.stream"
_ADDED: Final = (
    "rows", "rows_from_table", "rows_from_log", "rows_excluded", "duplicates_removed", "cancelled", "corrected",
    "originals_unknown",
)  # fmt: skip
"""What a certificate says of its own page only."""
_BUSY: Final = frozenset({httpx2.codes.TOO_MANY_REQUESTS, httpx2.codes.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Result:
    """Rows in order, and the certificate of the answer; of several pages, that of the first with the rows added up."""

    table: pa.Table
    certificate: dict[str, Any]


class K2Client:
    """Asks one API. Use it as a context manager, or close it.

    An answer longer than `page_rows` is fetched page by page, all of one log prefix. A refusal that names a pause
    (Retry-After) is asked again after it, up to `attempts_max` times in all, with pauses of at most
    `pause_seconds_max`.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_seconds: float = 60.0,
        page_rows: int = 200_000,
        attempts_max: int = 3,
        pause_seconds_max: float = 10.0,
        transport: httpx2.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._page_rows = page_rows
        self._attempts_max = attempts_max
        self._pause_seconds_max = pause_seconds_max
        self._http = httpx2.Client(
            base_url=base_url,
            headers={"X-API-Key": api_key},
            timeout=timeout_seconds,
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def trades(
        self,
        symbol: str,
        *,
        exchange: str | None = None,
        start: str | int | None = None,
        end: str | int | None = None,
        window_minutes: float | None = None,
        anchor: Literal["now", "latest"] = "now",
        limit: int | None = None,
        as_of: str | int | None = None,
        known_at: str | int | None = None,
        amendments: Literal["applied", "raw"] = "applied",
        on_degrade: Literal["fail", "stale", "partial"] = "fail",
        max_staleness: float | None = None,
        **more: Any,
    ) -> Result:
        """Return a symbol's trades; `more` are other parameters of GET /v1/trades (lake_only, gaps, deferred).

        Times are ISO 8601 (no zone: UTC) or nanoseconds; the range is half-open. Without one: the last 15 minutes.
        All rows come unless `limit` says how many at most. Cancelled trades are left out and corrected ones come as
        they are now, or as they were known at `known_at`: a time, or the `as_of` of a certificate. With `amendments`
        "raw" every record comes as it was written.

        `as_of` answers from a log prefix of before: that of a certificate's `as_of`, of a snapshot ("snapshot:ID") or a
        tag (see `snapshots`), or of a time. The same token gives the same rows again.

        Where the log is out of reach, `on_degrade` "stale" gives what the table holds, and "partial" also what there is
        while the table is; the certificate marks both. `max_staleness` is how many seconds the answer may end before
        the log does.

        Raises:
            RefusedQuestionError: the question is wrong.
            RefusedKeyError: the key is wrong.
            ApiUnavailableError: K2 cannot answer now.
        """
        asked = {"exchange": exchange, "start": start, "end": end, "window_minutes": window_minutes, "anchor": anchor}
        shown: dict[str, Any] = {"as_of": as_of, "known_at": known_at, "amendments": amendments}
        shown |= {"on_degrade": on_degrade, "max_staleness": max_staleness}
        return self._records("trades", {"symbol": symbol, **asked, **shown, **more}, limit)

    def quotes(
        self,
        symbol: str,
        *,
        exchange: str | None = None,
        start: str | int | None = None,
        end: str | int | None = None,
        window_minutes: float | None = None,
        anchor: Literal["now", "latest"] = "now",
        limit: int | None = None,
        as_of: str | int | None = None,
        known_at: str | int | None = None,
        amendments: Literal["applied", "raw"] = "applied",
        on_degrade: Literal["fail", "stale", "partial"] = "fail",
        max_staleness: float | None = None,
        **more: Any,
    ) -> Result:
        """Return a symbol's quotes; as `trades`."""
        asked = {"exchange": exchange, "start": start, "end": end, "window_minutes": window_minutes, "anchor": anchor}
        shown: dict[str, Any] = {"as_of": as_of, "known_at": known_at, "amendments": amendments}
        shown |= {"on_degrade": on_degrade, "max_staleness": max_staleness}
        return self._records("quotes", {"symbol": symbol, **asked, **shown, **more}, limit)

    def bars(
        self,
        symbol: str,
        *,
        interval: str = "1m",
        align: Literal["utc", "session"] = "utc",
        prints: Literal["regular", "all"] = "regular",
        exchange: str | None = None,
        start: str | int | None = None,
        end: str | int | None = None,
        window_minutes: float | None = None,
        anchor: Literal["now", "latest"] = "now",
        **more: Any,
    ) -> Result:
        """Return the bars of a symbol's trades; `more` are other parameters of GET /v1/ohlcv, as of `trades`.

        `interval` is from 1s to 1d, counted from UTC midnight or, with `align` "session", from the exchange's midnight
        and the edges of its sessions. Only trades that the exchange's rule calls regular count, unless `prints` is
        "all". The answer comes whole, never in pages.
        """
        asked = {"exchange": exchange, "start": start, "end": end, "window_minutes": window_minutes, "anchor": anchor}
        shape = {"interval": interval, "align": align, "prints": prints}
        table = self._page("/v1/ohlcv", {"symbol": symbol, **shape, **asked, **more})
        certificate = json.loads(table.schema.metadata[CERTIFICATE_KEY])
        return Result(table.replace_schema_metadata(None), certificate)

    def asof(
        self,
        symbol: str,
        *,
        tolerance: float = 3_600.0,
        strictly_before: bool = False,
        exchange: str | None = None,
        start: str | int | None = None,
        end: str | int | None = None,
        window_minutes: float | None = None,
        anchor: Literal["now", "latest"] = "now",
        limit: int | None = None,
        **more: Any,
    ) -> Result:
        """Return a symbol's trades, each with the last quote of its exchange that was not after it (ASOF join).

        `more` are other parameters of GET /v1/asof, as of `trades`. A quote is at most `tolerance` seconds older than
        the trade; with `strictly_before` one of the trade's very nanosecond does not count. The columns of trades come
        first, then `quote_ts_event_ns`, the quote's coordinate, and its prices and sizes; null where no quote stood.
        """
        asked = {"exchange": exchange, "start": start, "end": end, "window_minutes": window_minutes, "anchor": anchor}
        shape = {"tolerance": tolerance, "strictly_before": strictly_before}
        return self._records("asof", {"symbol": symbol, **shape, **asked, **more}, limit)

    def pages(self, data_type: Literal["trades", "quotes"], symbol: str, **question: Any) -> Iterator[Result]:
        """Yield what `trades` or `quotes` returns page by page, so that only one page is in memory.

        All pages are of one log prefix; each has the certificate of its own rows. `question` is as of `trades`, without
        a limit.
        """
        return (page for page, _ in self._pages(data_type, {"symbol": symbol, **question}, None))

    def symbols(self, *, exchange: str | None = None, data_type: str | None = None) -> list[dict[str, Any]]:
        """Return the symbols that there are, with rows and the times of the first and last event."""
        body = self._get("/v1/symbols", {"exchange": exchange, "data_type": data_type}).json()
        found: list[dict[str, Any]] = body["data"]
        return found

    def gaps(
        self,
        *,
        symbol: str | None = None,
        exchange: str | None = None,
        since: str | int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the gaps in the venues' numbers, the newest first; `since` leaves out those that ended before."""
        body = self._get("/v1/gaps", {"symbol": symbol, "exchange": exchange, "since": since, "limit": limit}).json()
        found: list[dict[str, Any]] = body["data"]
        return found

    def snapshots(self, *, table: Literal["trades", "quotes"] | None = None) -> list[dict[str, Any]]:
        """Return the snapshots that the tables still have, each table's newest first, with what `as_of` takes."""
        body = self._get("/v1/snapshots", {"table": table}).json()
        found: list[dict[str, Any]] = body["data"]
        return found

    def stream(
        self,
        symbols: str | Sequence[str],
        *,
        table: Literal["trades", "quotes"] = "trades",
        exchange: str | None = None,
        start: str | int = "latest",
        cursor: str | None = None,
        bars: str | None = None,
        follow: bool = True,
        on_slow: OnSlow = "wait",
    ) -> Iterator[StreamEvent]:
        """Give the events of a stream: history, then what comes next, no record missing and none twice.

        `start` is "latest", a time, or the `as_of` of a certificate; `cursor` is that of the last event that you have.
        A connection that is cut is made again and goes on behind the last event. Records come as they were written,
        CANCELs and CORRECTs among them. With `bars`, an interval, bars come as well, each once it is final. Without
        `follow` it ends at the newest record. A reader that does not keep up gets the rest from the table ("wait"), is
        told what was left out ("drop"), or is ended ("disconnect").

        Raises:
            RefusedQuestionError, RefusedKeyError: the question or the key is wrong.
            ApiUnavailableError: K2 could not be reached `attempts_max` times in a row, or the reader was too slow.
        """
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        plan = StreamPlan(
            names, table, exchange, start, cursor, bars, follow, on_slow, self._attempts_max, self._pause_seconds_max
        )
        while not plan.is_over:
            parser = EventParser()
            error: ClientError | None = None
            try:
                with self._http.stream("GET", PATH, params=plan.parameters(), headers=HEADERS) as response:
                    if response.is_success:
                        for part in response.iter_bytes():
                            for event in parser.feed(part):
                                if (found := plan.take(event)) is not None:
                                    yield found
                    else:
                        response.read()
                        error = error_of(response)
            except httpx2.HTTPError as failure:
                error = unreachable(str(self._http.base_url), failure)
            if not plan.is_over:
                self._clock.sleep(plan.pause_seconds(error))

    def health(self) -> dict[str, Any]:
        """Return what the platform says of itself."""
        found: dict[str, Any] = self._get("/health", {}).json()
        return found

    def _records(self, data_type: str, question: Mapping[str, Any], limit: int | None) -> Result:
        import pyarrow as pa  # noqa: PLC0415  # `k2 status` and the like need no tables

        pages = list(self._pages(data_type, question, limit))
        certificates = [page.certificate for page, _ in pages]
        return Result(
            pa.concat_tables([page.table for page, _ in pages]),
            joined_certificate(certificates, truncated=pages[-1][1]),
        )

    def _pages(self, data_type: str, question: Mapping[str, Any], limit: int | None) -> Iterator[tuple[Result, bool]]:
        """Yield page after page, each with whether there is more."""
        left, cursor = limit, None
        while True:
            page_rows = self._page_rows if left is None else min(left, self._page_rows)
            asked = {**question, "limit": page_rows, "cursor": cursor}
            table = self._page(f"/v1/{data_type}", asked)
            metadata = table.schema.metadata or {}
            left = None if left is None else left - table.num_rows
            cursor = metadata[CURSOR_KEY].decode() if CURSOR_KEY in metadata else None
            certificate = json.loads(metadata[CERTIFICATE_KEY])
            yield Result(table.replace_schema_metadata(None), certificate), cursor is not None
            if cursor is None or left == 0:
                return

    def _page(self, path: str, asked: Mapping[str, Any]) -> pa.Table:
        import pyarrow as pa  # noqa: PLC0415  # as above

        return pa.ipc.open_stream(self._get(path, asked, accept=ARROW).content).read_all()

    def _get(self, path: str, parameters: Mapping[str, Any], *, accept: str = "application/json") -> httpx2.Response:
        given = {name: value for name, value in parameters.items() if value is not None}
        attempt = 1
        while True:
            response = self._ask(path, given, accept)
            if response.is_success:
                return response
            if response.status_code not in _BUSY or attempt >= self._attempts_max:
                raise error_of(response)
            attempt += 1
            self._clock.sleep(min(retry_after_seconds(response), self._pause_seconds_max))

    def _ask(self, path: str, given: Mapping[str, Any], accept: str) -> httpx2.Response:
        try:
            return self._http.get(path, params=given, headers={"Accept": accept})
        except httpx2.InvalidURL as error:
            raise RefusedQuestionError(f"the question cannot be a URL: {error}", status=414, request_id=None) from error
        except httpx2.TimeoutException as error:
            raise ApiUnavailableError(
                f"the API at {self._http.base_url} did not answer in time: ask for a shorter range"
            ) from error
        except httpx2.HTTPError as error:
            raise unreachable(str(self._http.base_url), error) from error


def joined_certificate(certificates: Sequence[dict[str, Any]], *, truncated: bool) -> dict[str, Any]:
    """Return the certificate of an answer that came in pages: that of the first, with the rows of all."""
    first = certificates[0]
    added = {name: sum(page[name] for page in certificates) for name in _ADDED}
    complete = all(page["complete"] for page in certificates)
    reasons = list(dict.fromkeys(reason for page in certificates for reason in page["reasons"]))
    newest = [page["newest_record_age_seconds"] for page in certificates if page["rows"]]
    age = newest[-1] if newest else None
    return {
        **first,
        **added,
        "complete": complete,
        "stale": any(page["stale"] for page in certificates),
        "reasons": reasons,
        "truncated": truncated,
        "newest_record_age_seconds": age,
    }
