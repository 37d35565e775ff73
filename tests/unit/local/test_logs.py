"""Logs stay within their size and are read from the end."""

from __future__ import annotations

import itertools

from k2.local.logs import follow, last_lines, turn_over


class Writer:
    """A clock whose pause writes the next text, as a component would while nobody looks."""

    def __init__(self, log, *texts: str) -> None:
        self._log = log
        self._texts = iter(texts)

    def time_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, _seconds: float) -> None:
        with self._log.open("a") as file:
            file.write(next(self._texts))


def test_a_log_within_its_size_is_left_alone(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("12345")

    assert not turn_over(log, 5)
    assert log.read_text() == "12345"


def test_a_log_that_grew_too_large_is_turned_over_under_its_writer(tmp_path):
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"123456")

        assert turn_over(log, 5)
        writer.write(b"7")

    assert (tmp_path / "x.log.1").read_text() == "123456"
    assert log.read_text() == "7"


def test_no_log_is_nothing_to_do(tmp_path):
    assert not turn_over(tmp_path / "x.log", 5)
    assert last_lines(tmp_path / "x.log", 3) == []


def test_the_last_lines_are_the_last_lines(tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(b"a\nb\n\xff\n")

    assert last_lines(log, 2) == ["b", "\N{REPLACEMENT CHARACTER}"]


def test_following_yields_whole_lines_only(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("old\n")

    lines = itertools.islice(follow({"x": log}, Writer(log, "ne", "w\nnext\n")), 2)

    assert list(lines) == [("x", "new"), ("x", "next")]
