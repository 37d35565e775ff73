"""A synchronous HTTP client of K2: Arrow tables with their certificates, errors as exceptions, pages joined."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import httpx2
import pyarrow as pa

from k2.common.clock import Clock, SystemClock
from k2.common.errors import ConfigurationError, QueryError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

CERTIFICATE_KEY: Final = b"k2.certificate"
CURSOR_KEY: Final = b"k2.next_cursor"
ARROW: Final = "application/vnd.apache.arrow.stream"
PAGE_ROWS: Final = 200_000
ATTEMPTS_MAX: Final = 3
PAUSE_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Result:
    """Rows in order, and the certificate of the answer; of several pages, that of the first with the rows added up."""

    table: pa.Table
    certificate: dict[str, Any]


class K2Client:
    """Asks one API. Use it as a context manager, or close it."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_seconds: float = 60.0,
        transport: httpx2.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
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

    def trades(self, symbol: str, *, limit: int | None = None, **question: Any) -> Result:
        """Return trades; `question` are the other parameters of GET /v1/trades (exchange, start, ...).

        Raises:
            QueryError: the question is wrong.
            ConfigurationError: the key is wrong.
            UnavailableError: K2 cannot answer now.
        """
        return self._records("trades", symbol, limit, question)

    def quotes(self, symbol: str, *, limit: int | None = None, **question: Any) -> Result:
        """Return quotes; as `trades`."""
        return self._records("quotes", symbol, limit, question)

    def symbols(self, *, exchange: str | None = None, data_type: str | None = None) -> list[dict[str, Any]]:
        """Return the symbols that there are, with rows and the times of the first and last event."""
        found: list[dict[str, Any]] = self._get("/v1/symbols", {"exchange": exchange, "data_type": data_type}).json()[
            "data"
        ]
        return found

    def health(self) -> dict[str, Any]:
        """Return what the platform says of itself."""
        found: dict[str, Any] = self._get("/health", {}).json()
        return found

    def _records(
        self, kind: Literal["trades", "quotes"], symbol: str, limit: int | None, question: dict[str, Any]
    ) -> Result:
        tables: list[pa.Table] = []
        certificate: dict[str, Any] = {}
        left, cursor = limit, None
        while True:
            page_rows = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
            asked = {"symbol": symbol, **question, "limit": page_rows, "cursor": cursor}
            if cursor is not None:
                asked |= dict.fromkeys(("start", "end", "window_minutes"))
            body = self._get(f"/v1/{kind}", asked, accept=ARROW).content
            table = pa.ipc.open_stream(body).read_all()
            metadata = table.schema.metadata or {}
            page_certificate = json.loads(metadata[CERTIFICATE_KEY])
            certificate = _joined(certificate, page_certificate)
            tables.append(table.replace_schema_metadata(None))
            left = None if left is None else left - len(table)
            cursor = metadata[CURSOR_KEY].decode() if CURSOR_KEY in metadata else None
            if cursor is None or left == 0:
                certificate["truncated"] = cursor is not None
                return Result(pa.concat_tables(tables), certificate)

    def _get(self, path: str, parameters: Mapping[str, Any], *, accept: str = "application/json") -> httpx2.Response:
        given = {name: value for name, value in parameters.items() if value is not None}
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                response = self._http.get(path, params=given, headers={"Accept": accept})
            except httpx2.HTTPError as error:
                raise UnavailableError(
                    f"expected the API at {self._http.base_url}, found none ({error}): "
                    "is the platform up? `k2 status` tells",
                    dependency="api",
                ) from error
            pause = float(response.headers.get("Retry-After", "1"))
            if response.status_code != httpx2.codes.SERVICE_UNAVAILABLE or attempt == ATTEMPTS_MAX:
                break
            self._clock.sleep(min(pause, PAUSE_SECONDS_MAX))
        if response.is_success:
            return response
        raise _error_of(response)


def _joined(first: dict[str, Any], page: dict[str, Any]) -> dict[str, Any]:
    if not first:
        return page
    added = {name: first[name] + page[name] for name in ("rows", "rows_from_table", "rows_from_log")}
    return {**first, **added, "complete": first["complete"] and page["complete"]}


def _error_of(response: httpx2.Response) -> Exception:
    try:
        body = response.json()
        text = f"{body['detail']} (status {response.status_code}, request {body.get('request_id', 'unknown')})"
    except (ValueError, KeyError, TypeError):
        text = f"the API answered {response.status_code}: {response.text[:200]}"
    if response.status_code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        return ConfigurationError(text)
    if response.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        return UnavailableError(text, dependency="api")
    return QueryError(text)
