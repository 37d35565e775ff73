"""Sends trades to a topic, some of them broken, and keeps what the broker acknowledged: the campaign's own log."""

from __future__ import annotations

import hashlib
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Producer

from k2.schemas.records import PRICE_SCALE, QUANTITY_SCALE
from k2.testing.messages import encode, trade

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from confluent_kafka import KafkaError

    from k2.common.clock import Clock

SYMBOLS: Final = tuple(f"SYM{number}" for number in range(12))
_PAUSE_SECONDS: Final = 0.05
_BROKEN_WEIGHTS: Final = (6, 6, 6, 6, 6, 1)
"""Unknown schema ids are rare: a worker stops where they are many, since then the registry is the wrong one."""

_FLUSH_SECONDS: Final = 60.0
_PRICE_UNIT: Final = Decimal(1).scaleb(-PRICE_SCALE)
_QUANTITY_UNIT: Final = Decimal(1).scaleb(-QUANTITY_SCALE)
_CONTENT: Final = ("exchange", "symbol", "ts_event_ns", "sequence", "trade_id", "side", "extra")


def content_of(record: Mapping[str, Any]) -> str:
    """Return a hash of what a trade says, the same for what was sent and for what a table holds."""
    numbers = (record["price"].quantize(_PRICE_UNIT), record["quantity"].quantize(_QUANTITY_UNIT))
    text = "|".join([*(str(record[name]) for name in _CONTENT), *map(str, numbers)])
    return hashlib.sha256(text.encode()).hexdigest()


def letter_of(key: bytes | None, value: bytes | None) -> str:
    """Return what a dead letter is known by: a hash of its key and bytes."""
    return hashlib.sha256(b"%r|%r" % (key, value)).hexdigest()


class Feeder:
    """A thread that sends `per_second` messages until it is stopped; `broken` is the share that no decoder can read."""

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        schema_id: int,
        *,
        draw: random.Random,
        clock: Clock,
        per_second: int = 300,
        broken: float = 0.02,
    ) -> None:
        self._topic = topic
        self._exchange = topic.rpartition(".")[2]
        self._schema_id = schema_id
        self._draw = draw
        self._clock = clock
        self._per_second = per_second
        self._broken = broken
        self._sent = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.good: dict[str, str] = {}
        self.bad: set[str] = set()
        self.unacknowledged: set[str] = set()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "delivery.timeout.ms": int(_FLUSH_SECONDS * 1000),
                "log_level": 0,
            }
        )

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending, and wait until the broker has answered for everything."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._producer.flush(_FLUSH_SECONDS)

    def send(self, count: int) -> None:
        """Send so many messages now, and do not wait for the broker."""
        for _ in range(count):
            self._send_one()
        self._producer.poll(0)

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has taken."""
        return len(self.good) + len(self.bad)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.send(max(1, int(self._per_second * _PAUSE_SECONDS)))
            self._clock.sleep(_PAUSE_SECONDS)

    def _send_one(self) -> None:
        with self._lock:
            self._sent += 1
            number = self._sent
        key, value, known, content = self._message(number)
        with self._lock:
            self.unacknowledged.add(known)

        def delivered(error: KafkaError | None, _message: object) -> None:
            if error is None:
                with self._lock:
                    self.unacknowledged.discard(known)
                    if content is None:
                        self.bad.add(known)
                    else:
                        self.good[known] = content

        while True:
            try:
                self._producer.produce(self._topic, key=key, value=value, on_delivery=delivered)
            except BufferError:
                self._producer.poll(_PAUSE_SECONDS)
            else:
                return

    def _message(self, number: int) -> tuple[bytes, bytes | None, str, str | None]:
        """Return key, value, what the message is known by, and its content (None of a broken one)."""
        symbol = self._draw.choice(SYMBOLS)
        record = trade(
            exchange=self._exchange,
            symbol=symbol,
            sequence=number,
            source_sequence=number,
            trade_id=f"{self._topic}-{number}",
            price=Decimal(self._draw.randrange(1, 10**9)).scaleb(-4),
            quantity=Decimal(self._draw.randrange(1, 10**6)),
            side=self._draw.choice([None, "BUY", "SELL"]),
            extra=self._draw.choice([None, '{"v":1}']),
        )
        whole = encode(record, schema_id=self._schema_id)
        if self._draw.random() >= self._broken:
            return symbol.encode(), whole, record["trade_id"], content_of(record)
        key, value = self._break(number, whole)
        return key, value, letter_of(key, value), None

    def _break(self, number: int, whole: bytes) -> tuple[bytes, bytes | None]:
        """Return a message that no decoder can read, and that no other message equals."""
        key = b"broken-%d" % number
        unknown_schema = b"\0\x7f\xff\xff\xff" + whole[5:]
        (value,) = self._draw.choices(
            [
                None,
                b"",
                whole[: self._draw.randrange(1, len(whole))],
                whole + self._draw.randbytes(3),
                b"\1" + self._draw.randbytes(self._draw.randrange(60)),
                unknown_schema,
            ],
            weights=_BROKEN_WEIGHTS,
        )
        return key, value
