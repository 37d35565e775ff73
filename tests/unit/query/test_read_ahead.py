"""Files are read while a question waits for the log, and what is read so is what would have been read after it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from k2.common.errors import CorruptionError
from k2.query.narrow_reader import NarrowReader
from k2.testing.simulated_hybrid import ASX, SimulatedHybrid, ask, home, times
from k2.testing.simulated_messages import TradeFields

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.query.request import QueryRequest

NOW = 1_700_000_000_000_000_000
MINUTE = 60_000_000_000
WAIT_SECONDS = 10.0


class Reads:
    """The narrow reads of files, each before it begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.questions: list[QueryRequest] = []
        self.begun = threading.Event()
        read: Callable[..., Any] = NarrowReader.read

        def noted(reader: NarrowReader, request: QueryRequest, *arguments: Any, **more: Any) -> Any:
            self.questions.append(request)
            self.begun.set()
            return read(reader, request, *arguments, **more)

        monkeypatch.setattr(NarrowReader, "read", noted)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def stored(hybrid: SimulatedHybrid) -> SimulatedHybrid:
    """Trades of the last 20 minutes, all but the newest one in the table."""
    for minutes in (20, 10, 1):
        hybrid.market.append(ASX.name, "BHP", NOW - minutes * MINUTE, identity=minutes)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), 2)
    hybrid.tail.step()
    return hybrid


def before_ranges(hybrid: SimulatedHybrid, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something whenever the log is asked for its ends."""
    ranges = hybrid.market.ranges

    def asked(topics: Any) -> Any:
        action()
        return ranges(topics)

    monkeypatch.setattr(hybrid.market, "ranges", asked)


def test_files_are_read_while_the_log_is_asked(
    stored: SimulatedHybrid, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    before_ranges(stored, monkeypatch, lambda: seen.append(reads.begun.wait(WAIT_SECONDS)))

    answer = ask(stored, window_minutes=15)

    assert seen == [True]
    assert len(reads.questions) == 1
    assert times(answer) == [NOW - 10 * MINUTE, NOW - MINUTE]
    assert (answer.certificate.rows_from_table, answer.certificate.rows_from_log) == (1, 1)


def test_a_window_ends_when_the_question_is_asked_however_long_the_log_takes(
    stored: SimulatedHybrid, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_ranges(stored, monkeypatch, lambda: stored.clock.advance(6 * 60))

    answer = ask(stored, window_minutes=15)

    assert (answer.certificate.start_ns, answer.certificate.end_ns) == (NOW - 15 * MINUTE, NOW)
    assert times(answer) == [NOW - 10 * MINUTE, NOW - MINUTE]
    assert len(reads.questions) == 1


def test_what_an_amendment_needs_besides_is_read_once_it_is_known(stored: SimulatedHybrid, reads: Reads) -> None:
    stored.market.append(ASX.name, "BHP", NOW - MINUTE, trade=TradeFields(trade_id="a"))
    stored.market.commit(ASX.name, home(stored, "BHP"))
    plain = ask(stored, columns=("price",))
    stored.market.append(ASX.name, "BHP", NOW - MINUTE, trade=TradeFields(action="CANCEL", ref_trade_id="a"))

    amended = ask(stored, columns=("price",))

    assert (plain.table.num_rows, amended.table.num_rows) == (4, 3)
    assert len(reads.questions) == 1 + 2


@pytest.mark.parametrize("fields", [{"lake_only": True}, {"window_minutes": 15, "anchor": "latest"}])
def test_nothing_is_read_ahead_where_nothing_is_waited_for_or_the_range_is_not_known(
    stored: SimulatedHybrid, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    reader = stored.engine._rows
    monkeypatch.setattr(reader, "read_ahead", lambda *_: pytest.fail("read ahead"))

    assert ask(stored, **fields).table.num_rows > 0


def test_files_that_overlap_in_time_are_read_in_order(stored: SimulatedHybrid) -> None:
    stored.market.append(ASX.name, "BHP", NOW - 15 * MINUTE)
    stored.market.commit(ASX.name, home(stored, "BHP"))

    answer = ask(stored)

    assert answer.certificate.rows_from_log == 0
    assert times(answer) == [NOW - minutes * MINUTE for minutes in (20, 15, 10, 1)]


def test_a_damaged_file_that_was_read_ahead_is_told_of(stored: SimulatedHybrid) -> None:
    (file,) = stored.market.plan(stored.market.pin("trades"))
    stored.market.commit(ASX.name, home(stored, "BHP"))
    stored.engine._files_read._checks.condemn(file.path, CorruptionError("a page is damaged", path=file.path))

    partial = ask(stored, on_degrade="partial")

    assert times(partial) == [NOW - MINUTE]
    assert partial.certificate.reasons == ("a page is damaged",)
    with pytest.raises(CorruptionError, match="a page is damaged"):
        ask(stored)
