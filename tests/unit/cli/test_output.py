"""Tables on a terminal: long texts are shortened where the line would not fit, and only there."""

from __future__ import annotations

import pyarrow as pa
import pytest

from k2.cli import output

HASH = "0123456789abcdef" * 4


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys: pytest.CaptureFixture[str], **columns: list[str]) -> list[str]:
    output.write(pa.table(columns), None, "table", None)
    return capsys.readouterr().out.splitlines()


def test_a_table_too_wide_for_the_terminal_shortens_long_texts(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(capsys, symbol=["BHP"], written_by=[HASH], note=["x" * 24])

    assert lines[1].split() == ["BHP", HASH[:23] + "…", "x" * 24]


def test_a_text_that_fits_is_shown_whole(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, written_by=[HASH])[1].split() == [HASH]


def test_a_pipe_gets_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, symbol=["BHP"], written_by=[HASH], note=["x" * 90])[1].split() == ["BHP", HASH, "x" * 90]


def test_a_text_of_several_lines_is_not_cut(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    plan = "\n".join(f"step {number} {'-' * 60}" for number in range(3))

    lines = shown(capsys, explain_key=["physical_plan"], explain_value=[plan])

    assert "step 2" in lines[3]


def test_other_tables_than_answers_begin_with_their_first_row(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, symbol=[f"S{number}" for number in range(50)])

    assert lines[1].strip() == "S0"
    assert lines[-1].startswith("the first 40 of 50 rows")


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "stale, NOT complete"), (12.34, "stale (up to 12.3 s behind the log), NOT complete")]
)
def test_an_answer_that_ends_before_the_log_says_how_far(
    capsys: pytest.CaptureFixture[str], seconds: float | None, said: str
) -> None:
    counts = {"rows": 1, "rows_from_table": 1, "rows_from_log": 0, "newest_record_age_seconds": 1.0}
    state = {"complete": False, "reasons": ["no log"], "truncated": False, "stale": True, "staleness_seconds": seconds}

    output.write(pa.table({"symbol": ["BHP"]}), counts | state, "table", None)

    assert said in " ".join(capsys.readouterr().out.split())
