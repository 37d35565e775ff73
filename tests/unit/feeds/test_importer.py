"""Importing files: each record once, whatever was there before, and each bad line in one place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from k2.common.errors import ConfigurationError, UnavailableError
from k2.feeds.asx import CheckedFile, TickFile, check_file, rows_after
from k2.feeds.bad_lines import BadLines
from k2.feeds.importer import Imported, import_files
from k2.feeds.settings import FeedSettings
from k2.testing.feed_world import FeedWorld

DLQ = "market.equities.trades.asx.dlq"
STATUS = "market.equities.status.asx"
SMALL = FeedSettings(import_block_bytes=1024)


def trade(number: int) -> str:
    return f"03/10/2014,10:13:34.{number % 1000:03},0.67,{number},0,,"


def lines(*numbers: int) -> str:
    return "".join(f"{trade(number)}\r\n" for number in numbers)


def file_of(directory: Path, content: str | bytes, *, symbol: str = "ABC", data_type: str = "trades") -> TickFile:
    path = directory / f"{symbol}-{data_type}.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TickFile(path, data_type, symbol)


@pytest.fixture
def world(tmp_path: Path) -> FeedWorld:
    return FeedWorld(tmp_path, "asx", SMALL)


def checked(world: FeedWorld, *files: TickFile, bad_lines: BadLines = BadLines.REFUSE) -> list[CheckedFile]:
    return [check_file(file, world.settings, bad_lines=bad_lines) for file in files]


def run(world: FeedWorld, *files: TickFile, bad_lines: BadLines = BadLines.REFUSE) -> list[Imported]:
    return import_files(
        checked(world, *files, bad_lines=bad_lines),
        channel=world.channel,
        held=world.held,
        settings=world.settings,
        on_progress=lambda *_: None,
    )


def sequences(world: FeedWorld, data_type: str = "trades") -> list[int]:
    return world.rows(data_type)["source_sequence"].to_list()


def test_a_file_of_many_blocks_is_sent_whole_and_in_order(world: FeedWorld, tmp_path: Path) -> None:
    (found,) = run(world, file_of(tmp_path, lines(*range(500))))

    assert (found.records, found.held, found.sent) == (500, 0, 500)
    assert sequences(world) == list(range(1, 501))
    assert world.rows("trades")["quantity"].to_list() == list(range(500))


@pytest.mark.parametrize("ingested", [False, True], ids=["still in the log", "in the table"])
def test_importing_again_adds_nothing(world: FeedWorld, tmp_path: Path, ingested: bool) -> None:
    file = file_of(tmp_path, lines(*range(100)))
    run(world, file)
    if ingested:
        world.ingest("trades")
        name = world.topics.topic("asx", "trades").name
        for number, entries in enumerate(world.log.topics[name].partitions):
            world.log.delete_before(name, number, len(entries))
    marks = len(world.log.messages(STATUS))

    (found,) = run(world, file)

    assert (found.held, found.sent) == (100, 0)
    assert len(world.log.messages(STATUS)) == marks == 1


@pytest.mark.parametrize("kept", [1, 37, 99])
def test_an_interrupted_import_resumes_after_the_last_record(world: FeedWorld, tmp_path: Path, kept: int) -> None:
    file = file_of(tmp_path, lines(*range(100)))
    run(world, file)
    name = world.topics.topic("asx", "trades").name
    (number,) = [n for n, entries in enumerate(world.log.topics[name].partitions) if entries]
    world.log.truncate(name, number, kept)

    (found,) = run(world, file)

    assert (found.held, found.sent) == (kept, 100 - kept)
    assert sequences(world) == list(range(1, 101))


def test_an_end_marker_that_an_interruption_left_out_is_sent(world: FeedWorld, tmp_path: Path) -> None:
    file = file_of(tmp_path, lines(1, 2))
    run(world, file)
    world.log.truncate(STATUS, 0, 0)

    run(world, file)

    assert len(world.log.messages(STATUS)) == 1
    assert sequences(world) == [1, 2]


def test_the_same_bytes_under_two_symbols_of_one_partition_are_different_records(
    world: FeedWorld, tmp_path: Path
) -> None:
    partitions = world.topics.topic("asx", "trades").partitions
    symbols = [f"S{number}" for number in range(partitions + 1)]  # two of them share a partition

    for ingested in (False, True):
        for symbol in symbols:
            run(world, file_of(tmp_path, lines(1, 2, 3), symbol=symbol))
            if ingested:
                world.ingest("trades")

    rows = world.rows("trades")
    found = dict(rows.group_by("symbol").agg("source_sequence").iter_rows())
    assert found == {symbol: [1, 2, 3] for symbol in symbols}
    assert rows["source"].n_unique() == 1


def test_two_files_of_one_symbol_do_not_hide_one_another(world: FeedWorld, tmp_path: Path) -> None:
    run(world, file_of(tmp_path, lines(*range(50))))

    (found,) = run(world, file_of(tmp_path, lines(*range(60, 70))))

    assert found.sent == 10


def test_a_bad_line_becomes_one_dead_letter_and_the_rest_is_imported(world: FeedWorld, tmp_path: Path) -> None:
    file = file_of(tmp_path, f"{trade(1)}\r\nbad,\xff\r\n{trade(3)}\r\n".encode("latin-1"))

    (found,) = run(world, file, bad_lines=BadLines.DEAD_LETTER)

    assert (found.records, found.sent, found.bad_lines, found.dead_letters) == (2, 2, 1, 1)
    assert sequences(world) == [1, 3]
    (letter,) = world.log.messages(DLQ)
    assert (letter.key, letter.value) == (b"ABC", b"bad,\xff")
    assert letter.headers["k2.line"] == b"2"
    assert letter.headers["k2.error_class"] == b"NotText"
    assert letter.headers["k2.reason"].startswith(b"expected text in UTF-8, found")
    assert letter.headers["k2.source"].decode() == world.rows("trades")["source"][0]


def test_bad_lines_do_not_come_twice_when_the_file_is_imported_again(world: FeedWorld, tmp_path: Path) -> None:
    file = file_of(tmp_path, lines(1, 2) + "bad\r\n" + lines(3) + "worse\r\n")
    run(world, file, bad_lines=BadLines.DEAD_LETTER)

    (found,) = run(world, file, bad_lines=BadLines.DEAD_LETTER)

    assert (found.sent, found.bad_lines, found.dead_letters) == (0, 2, 0)
    assert [letter.value for letter in world.log.messages(DLQ)] == [b"bad", b"worse"]


def test_bad_lines_below_held_rows_are_known_also_when_the_dead_letters_have_expired(
    world: FeedWorld, tmp_path: Path
) -> None:
    file = file_of(tmp_path, lines(1) + "bad\r\n" + lines(3))
    run(world, file, bad_lines=BadLines.DEAD_LETTER)
    world.log.truncate(DLQ, 0, 0)

    (found,) = run(world, file, bad_lines=BadLines.DEAD_LETTER)

    assert (found.dead_letters, world.log.messages(DLQ)) == (0, [])


def test_dead_letters_that_were_sent_before_the_interruption_are_not_sent_again(
    world: FeedWorld, tmp_path: Path
) -> None:
    file = file_of(tmp_path, lines(1) + "bad\r\n" + lines(3))
    run(world, file, bad_lines=BadLines.DEAD_LETTER)
    name = world.topics.topic("asx", "trades").name
    for number in range(len(world.log.topics[name].partitions)):
        world.log.truncate(name, number, 0)

    (found,) = run(world, file, bad_lines=BadLines.DEAD_LETTER)

    assert (found.sent, found.dead_letters, len(world.log.messages(DLQ))) == (2, 0, 1)


def test_no_row_is_in_the_log_before_the_dead_letters_above_it(world: FeedWorld, tmp_path: Path) -> None:
    file = file_of(tmp_path, lines(1) + "bad\r\n" + lines(3))
    (entry,) = checked(world, file, bad_lines=BadLines.DEAD_LETTER)
    world.log.topics.pop(DLQ)

    with pytest.raises(KeyError):
        import_files(
            [entry], channel=world.channel, held=world.held, settings=world.settings, on_progress=lambda *_: None
        )

    assert world.values("trades") == []


@pytest.mark.parametrize(
    ("data_type", "content"),
    [("trades", "03/10/2014,10:13:34.553,0.66,0.67,100,200\r\n" * 9), ("trades", "no\r\n" * 6 + lines(1, 2))],
    ids=["quotes among the trades", "mostly bad"],
)
def test_a_file_of_another_kind_is_refused_and_not_dead_lettered(
    world: FeedWorld, tmp_path: Path, data_type: str, content: str
) -> None:
    with pytest.raises(ConfigurationError, match="is it the right file"):
        run(world, file_of(tmp_path, content, data_type=data_type), bad_lines=BadLines.DEAD_LETTER)

    assert world.log.messages(DLQ) == []


def test_nothing_is_sent_of_any_file_when_the_last_one_is_bad(world: FeedWorld, tmp_path: Path) -> None:
    good, bad = file_of(tmp_path, lines(1)), file_of(tmp_path, "bad", symbol="XYZ")

    with pytest.raises(ConfigurationError, match=r"XYZ-trades\.csv:1: 'bad'"):
        run(world, good, bad)

    assert world.values("trades") == []


def test_a_file_that_changes_after_it_was_checked_is_refused(world: FeedWorld, tmp_path: Path) -> None:
    file = file_of(tmp_path, lines(1, 2))
    (entry,) = checked(world, file)
    file.path.write_text(lines(1, 2, 3))

    with pytest.raises(ConfigurationError, match="changed meanwhile"):
        list(rows_after(entry, 0, SMALL))


def test_a_file_that_changes_and_keeps_its_size_and_time_is_noticed_at_the_end(
    world: FeedWorld, tmp_path: Path
) -> None:
    (entry,) = checked(world, file_of(tmp_path, lines(1, 2)))

    with pytest.raises(ConfigurationError, match="changed meanwhile"):
        list(rows_after(replace(entry, source="0" * 64), 0, SMALL))


def test_a_log_that_falls_silent_ends_the_import(world: FeedWorld, tmp_path: Path) -> None:
    file = file_of(tmp_path, lines(1))
    run(world, file)
    world.log.is_up = False

    with pytest.raises(UnavailableError):
        run(world, file)
