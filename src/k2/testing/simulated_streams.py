"""Streams over a simulated market, at any moment cut, resumed or outrun: each must give the log's rows, each once."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from k2.api.settings import ApiSettings
from k2.api.streams.hub import LiveHub
from k2.api.streams.reader import StreamReader, resumed
from k2.api.streams.subscription import StreamRequest
from k2.common.errors import OverloadedError, UnavailableError
from k2.query.request import QueryRequest
from k2.schemas.records import ORDER
from k2.storage.seam import LogPartition
from k2.testing.simulated_questions import SYMBOLS, SimulatedQuestions

if TYPE_CHECKING:
    from k2.api.streams.events import Event
    from k2.api.streams.position import Position

Key = tuple[int, int, int, int]
_CLIENTS_MAX: Final = 6
_ROUNDS_MAX: Final = 300


@dataclass
class SimulatedClient:
    """One client: what it has got, and the last event's id. It may be cut off at any time."""

    request: StreamRequest
    begins: Position
    cursor: str | None = None
    reader: StreamReader | None = None
    stack: ExitStack = field(default_factory=ExitStack)
    rows: list[Key] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    resumes: int = 0

    def take(self, events: list[Event]) -> None:
        """Read events as a client does: text that was sent, in the order of the answer within each."""
        for event in events:
            body = json.loads(event.data)
            self.cursor = event.cursor or self.cursor
            if event.name == "rows":
                keys: list[Key] = [tuple(row[name] for name in ORDER) for row in body]
                assert keys == sorted(keys)
                self.rows += keys
            elif event.name == "left_out":
                self.left_out.append(body)


class SimulatedStreams(SimulatedQuestions):
    """One seeded run: streams are opened, read, cut and resumed while the market and the tables go on."""

    def begin_again(self) -> None:
        """Start everything anew; clients are cut, and come back with their cursors."""
        super().begin_again()
        self.settings = ApiSettings(
            stream_page_rows=self.random.choice([10, 1_000]),
            stream_event_rows_max=self.random.choice([2, 1_000]),
            stream_buffer_rows_max=self.random.choice([4, 1_000]),
        )
        self.hub = LiveHub(self.hybrid.engine, self.settings, self.hybrid.clock, threaded=False)
        self.clients: list[SimulatedClient] = getattr(self, "clients", [])
        self.pages = getattr(self, "pages", 0)

    def step(self) -> None:
        """Let one thing happen."""
        what = self.random.choices(
            ["append", "commit", "backfill", "tail", "look", "open", "read", "cut", "restart"],
            [8, 4, 2, 6, 6, 0.5 if len(self.clients) < _CLIENTS_MAX else 0, 9, 1, 0.3],
        )[0]
        getattr(self, what)()

    def restart(self) -> None:
        """Stop everything, and start it anew."""
        for client in self.clients:
            self.disconnect(client)
        super().restart()

    def look(self) -> None:
        """Let the hub look at the log once."""
        self.hub.step()

    def open(self) -> None:
        """Open a stream from the newest record on, or with history."""
        symbols = tuple(self.random.sample(SYMBOLS, self.random.choice([1, 1, 2, 4])))
        start = self.random.choice([None, None, 0, 1_020])
        request = StreamRequest(
            data_type=self.random.choice(["trades", "trades", "quotes"]),
            symbols=symbols,
            exchange=self.random.choice([None, "asx"]),
            start_ns=start,
            on_slow=self.random.choice(["wait", "wait", "drop", "disconnect"]),
        )
        begins = self.begun(request)
        self.clients.append(SimulatedClient(request, begins))
        self.connect(self.clients[-1])

    def begun(self, request: StreamRequest) -> Position:
        """Return where a stream begins; the tail may have to come as far as the table first."""
        while True:
            try:
                return self.hub.begin(request, with_history=request.start_ns is not None)
            except UnavailableError:
                self.hybrid.tail.step()
                self.hub.step()

    def connect(self, client: SimulatedClient) -> None:
        """Begin, or go on where the client's last event was."""
        position = client.begins if client.cursor is None else resumed(client.request, client.cursor)
        client.stack = ExitStack()
        subscription = client.stack.enter_context(self.hub.subscribed(client.request, "key", lambda: None))
        client.reader = StreamReader(
            client.request,
            position,
            engine=self.hybrid.engine,
            hub=self.hub,
            subscription=subscription,
            settings=self.settings,
        )

    def disconnect(self, client: SimulatedClient) -> None:
        """Cut a client off."""
        client.stack.close()
        client.reader = None

    def cut(self) -> None:
        """Cut a client off, now and then in the middle of what it is sent."""
        if self.clients:
            client = self.random.choice(self.clients)
            events = self.events(client)
            client.take(events[: self.random.randrange(len(events) + 1)])
            self.disconnect(client)

    def read(self) -> None:
        """Let a client read, or come back."""
        if self.clients:
            client = self.random.choice(self.clients)
            client.take(self.events(client))

    def events(self, client: SimulatedClient) -> list[Event]:
        """Return what a client is sent next."""
        if client.reader is None:
            client.resumes += 1
            self.connect(client)
        reader = client.reader
        assert reader is not None
        if not reader.needs_page:
            try:
                return reader.drain()
            except OverloadedError:
                self.disconnect(client)
                return []
        self.pages += 1
        try:
            reader.page()
        except UnavailableError:  # the tail is behind the table
            return []
        return reader.ready()

    def finish(self) -> None:
        """Let everything come to rest, and see what each client has got."""
        for _ in range(_ROUNDS_MAX):
            self.hybrid.tail.step()
            self.hub.step()
            found = [(client, self.events(client)) for client in self.clients]
            for client, events in found:
                client.take(events)
            at_rest = all(self.is_at_end(client) for client in self.clients)
            if at_rest and not any(events for _, events in found):
                break
        for client in self.clients:
            self.check_client(client)

    def is_at_end(self, client: SimulatedClient) -> bool:
        """Say whether a client has come as far as the log."""
        reader = client.reader
        if reader is None or reader.needs_page or not reader.position.is_whole:
            return False
        ends = {LogPartition(at, number): end for at, number, _, end in reader.position.prefix.partitions}
        head = self.market.head(client.request.data_type)
        return all(
            ends[LogPartition(log.log_id, number)] == len(self.market.partitions[log.topic, number].messages)
            for log in head.logs
            if client.request.exchange is None or log.topic.endswith(client.request.exchange)
            for number in range(log.partitions)
        )

    def check_client(self, client: SimulatedClient) -> None:
        """See that a client has got the log's rows since it began, once each: those of its last position's answer."""
        assert self.is_at_end(client)
        assert len(client.rows) == len(set(client.rows))
        due = self.due(client)
        lacking = set(due) - set(client.rows)
        assert set(client.rows) <= set(due)
        assert len(lacking) == sum(each["rows"] for each in client.left_out)
        assert all(self.is_left_out(client, row) for row in lacking)
        assert client.reader is not None
        assert set(self.answered(client, client.reader.position)) - self.before(client) == set(due)

    @staticmethod
    def is_left_out(client: SimulatedClient, row: Key) -> bool:
        """Say whether a client was told that it would not get a row."""
        return any(
            (item["log_id"], item["log_partition"]) == row[1:3] and item["start"] <= row[3] < item["end"]
            for each in client.left_out
            for item in each["ranges"]
        )

    def due(self, client: SimulatedClient) -> list[Key]:
        """Return what a plain reading of the log says that the client must have got."""
        start = client.begins.start_ns or 0
        request = client.request
        found = [
            row
            for symbol in request.symbols
            for row in self.market.replay(request.data_type, symbol, exchange=request.exchange)
        ]
        before = self.before(client)
        return sorted(row for row in found if row[0] >= start and row not in before)

    def before(self, client: SimulatedClient) -> set[Key]:
        """Return the rows of the log from before the stream began; none for one with history."""
        if client.begins.since is None:
            return set()
        ends = {(at, number): end for at, number, end in client.begins.since.ends}
        request = client.request
        return {
            row
            for symbol in request.symbols
            for row in self.market.replay(request.data_type, symbol, exchange=request.exchange, ends=ends)
        }

    def answered(self, client: SimulatedClient, position: Position) -> list[Key]:
        """Return the rows of the answer that a position's token names."""
        request, rows = client.request, []
        for symbol in request.symbols:
            answer = self.hybrid.engine.query(
                QueryRequest(
                    data_type=request.data_type,
                    symbol=symbol,
                    exchange=request.exchange,
                    start_ns=position.start_ns,
                    as_of=position.prefix.to_token(),
                    amendments="raw",
                )
            )
            rows += list(zip(*(answer.table[name].to_pylist() for name in ORDER), strict=True))
        return rows
