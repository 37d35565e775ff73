"""Importing files by a mapping: exact records, each once, whatever was there before, and each bad line in one place."""

from __future__ import annotations

import hashlib
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from k2.common.errors import ConfigurationError
from k2.feeds.bad_lines import BadLines
from k2.feeds.settings import FeedSettings
from k2.testing.feed_world import FeedWorld
from k2.testing.mapped_files import import_mapped

NAME = "market.crypto.trades.binance"
MAPPING = """
version: 1
table: trades
exchange: binance
columns:
  symbol: pair
  ts_event_ns: {column: time, unit: ms}
  price: price
  quantity: size
  side: {column: maker, values: {"true": SELL, "false": BUY}}
  trade_id: id
  extra: {columns: [venue]}
"""
HEADER = "id,time,pair,price,size,maker,venue\n"


def line(number: int, *, pair: str | None = None) -> str:
    maker = "true" if number % 2 else "false"
    return f"{number},{1_700_000_000_000 + number},{pair or f'P{number % 7}'},0.{number:09},{number}.5,{maker},v\n"


def lines(*numbers: int) -> str:
    return HEADER + "".join(map(line, numbers))


@pytest.fixture
def world(tmp_path: Path) -> FeedWorld:
    return FeedWorld(tmp_path, "binance", FeedSettings(import_block_bytes=4096))


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "mapping.yaml"
    path.write_text(MAPPING)
    return path


@pytest.fixture
def imports(world: FeedWorld, mapping: Path, tmp_path: Path):
    """Return what imports a content as a file."""

    def run(content: str | bytes, bad_lines: BadLines = BadLines.REFUSE):
        path = tmp_path / "trades.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_mapped(world, path, mapping, bad_lines=bad_lines)

    return run


def sequences(world: FeedWorld) -> list[int]:
    return sorted(world.rows("trades")["source_sequence"].to_list())


def test_a_line_becomes_the_record_that_the_mapping_says(world: FeedWorld, imports) -> None:
    content = HEADER + '7,1700000000123,ABC,12345678.123456789012,0.0000000001,true,"a ""b"", c"\n'

    imports(content)

    (row,) = world.rows("trades").to_dicts()
    assert (row["symbol"], row["exchange"], row["trade_id"], row["action"]) == ("ABC", "binance", "7", "NEW")
    assert (row["price"], row["quantity"]) == (Decimal("12345678.123456789012"), Decimal("0.0000000001"))
    assert row["ts_event_ns"] == row["ts_recv_ns"] == 1_700_000_000_123_000_000
    assert (row["side"], row["conditions"], row["trading_date"]) == ("SELL", [], date(2023, 11, 14))
    assert row["extra"] == '{"venue":"a \\"b\\", c"}'
    assert (row["source"], row["source_sequence"]) == (hashlib.sha256(content.encode()).hexdigest(), 2)
    assert (row["sequence"], row["channel"]) == (None, None)


def test_a_file_of_many_blocks_is_sent_whole_and_each_partition_in_its_order(world: FeedWorld, imports) -> None:
    found = imports(lines(*range(500)))

    assert (found.records, found.held, found.sent, found.symbols) == (500, 0, 500, 7)
    assert sequences(world) == list(range(2, 502))
    for (_symbol,), rows in world.rows("trades").group_by("symbol", maintain_order=True):
        assert rows["source_sequence"].is_sorted()


@pytest.mark.parametrize("ingested", [False, True], ids=["still in the log", "in the table"])
def test_importing_again_adds_nothing(world: FeedWorld, imports, ingested: bool) -> None:
    imports(lines(*range(100)))
    if ingested:
        world.ingest("trades")
        for number, entries in enumerate(world.log.topics[NAME].partitions):
            world.log.delete_before(NAME, number, len(entries))

    found = imports(lines(*range(100)))

    assert (found.held, found.sent) == (100, 0)


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_an_interrupted_import_resumes_in_each_partition_where_it_ended(world: FeedWorld, imports, kept: int) -> None:
    imports(lines(*range(100)))
    held = 0
    for number, entries in enumerate(world.log.topics[NAME].partitions):
        count = min(kept * number, len(entries))
        world.log.truncate(NAME, number, count)
        held += count

    found = imports(lines(*range(100)))

    assert (found.held, found.sent) == (held, 100 - held)
    assert sequences(world) == list(range(2, 102))


def test_a_longer_file_is_another_source(world: FeedWorld, imports) -> None:
    imports(lines(1, 2))

    found = imports(lines(1, 2, 3))

    assert (found.held, found.sent) == (0, 3)  # what it repeats is found by its trade ids, as any duplicate


def test_bad_lines_become_dead_letters_once(world: FeedWorld, imports) -> None:
    content = (lines(1, 2) + "3,x\n" + line(4)).encode() + b'5,"open\n' + b"\xff\n" + line(6).encode()

    first = imports(content, BadLines.DEAD_LETTER)
    again = imports(content, BadLines.DEAD_LETTER)

    assert (first.sent, first.bad_lines, first.dead_letters) == (4, 3, 3)
    assert (again.sent, again.bad_lines, again.dead_letters) == (0, 3, 0)
    letters = world.log.messages(f"{NAME}.dlq")
    assert [(each.value, each.headers["k2.line"]) for each in letters] == [
        (b"3,x", b"4"),
        (b'5,"open', b"6"),
        (b"\xff", b"7"),
    ]
    assert [each.headers["k2.error_class"] for each in letters] == [b"WrongColumns", b"InvalidQuoting", b"NotText"]


def test_dead_letters_above_what_is_held_are_looked_up_and_those_below_it_are_known(world: FeedWorld, imports) -> None:
    content = lines(1) + "bad\n" + line(2) + "worse\n"
    imports(content, BadLines.DEAD_LETTER)
    world.log.truncate(f"{NAME}.dlq", 0, 0)

    found = imports(content, BadLines.DEAD_LETTER)

    assert [each.value for each in world.log.messages(f"{NAME}.dlq")] == [b"worse"]
    assert (found.sent, found.dead_letters) == (0, 1)


@pytest.mark.parametrize(
    ("cell", "value", "named"),
    [
        (3, "1.0000000000001", "a price of at most 16 digits and 12 decimals in column price"),
        (3, "abc", "a price"),
        (3, "", "a price"),
        (4, "12345678901234567890", "a quantity of at most 18 digits and 10 decimals in column size"),
        (5, "maybe", "BUY or SELL (written as 'true', 'false') in column maker"),
        (1, "1700000000", "is the unit, format or zone of ts_event_ns right"),
        (1, "9999999999999999", "a number of ms since 1970"),
        (1, "noon", "a number of ms since 1970"),
        (2, "", "a symbol of 1 to 64 bytes"),
    ],
)
def test_a_bad_value_refuses_the_file_and_is_named(
    world: FeedWorld, imports, cell: int, value: str, named: str
) -> None:
    cells = line(3).strip().split(",")
    cells[cell] = value

    with pytest.raises(ConfigurationError) as refused:
        imports(lines(1) + ",".join(cells) + "\n")

    text = str(refused.value)
    assert "trades.csv:3: " in text
    assert "mapping.yaml" in text
    assert named in text
    assert world.values("trades") == []


def test_numbers_with_exponents_and_empty_lines_are_taken_as_they_are(world: FeedWorld, imports) -> None:
    imports(HEADER + "1,1.700000000123456789E+12,A,1.5e-7,2E3,true,\n\n2,1700000000001.5,A,-1,0,false,\n\r\n")

    rows = world.rows("trades").sort("source_sequence")
    assert rows["price"].to_list() == [Decimal("0.00000015"), Decimal(-1)]
    assert rows["quantity"].to_list() == [Decimal(2000), Decimal(0)]
    assert rows["ts_event_ns"].to_list() == [1_700_000_000_123_456_789, 1_700_000_000_001_500_000]
    assert rows["source_sequence"].to_list() == [2, 4]
    assert rows["extra"].to_list() == [None, None]


def test_the_ends_of_numbered_symbols_are_marked_once(world: FeedWorld, mapping: Path, imports) -> None:
    mapping.write_text(MAPPING + "  sequence: id\n")

    for _ in range(2):
        imports(lines(*range(1, 15)))

    assert len(world.log.messages("market.crypto.status.binance")) == 7


def test_one_symbol_for_all_files_is_resumed_by_the_symbol(world: FeedWorld, mapping: Path, imports) -> None:
    for symbol in ("AA", "BB", "CC", "DD", "EE"):  # two of them share a partition
        mapping.write_text(MAPPING.replace("symbol: pair", f"symbol: {{constant: {symbol}}}"))
        assert imports(lines(1, 2, 3)).sent == 3
        assert imports(lines(1, 2, 3)).sent == 0

    assert world.rows("trades")["symbol"].n_unique() == 5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("pair", "symbl"), r"expected the columns 'symbl' .*found 'id', 'time', 'pair'.*mend the mapping's columns"),
        (("exchange: binance", "exchange: nyse"), r"found 'nyse'.*K2_TOPICS_FILE"),
        (("table:", 'csv: {delimiter: ";"}\ntable:'), r"delimiter \(';'\)"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(
    world: FeedWorld, mapping: Path, imports, change: tuple[str, str], named: str
) -> None:
    mapping.write_text(MAPPING.replace(*change))

    with pytest.raises(ConfigurationError, match=named):
        imports(lines(1))
