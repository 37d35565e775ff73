"""How ASX reference data is read, and sent once: whatever the topic holds already stays as it is."""

from __future__ import annotations

import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from k2.common.errors import ConfigurationError
from k2.feeds.asx_reference import companies, read_reference
from k2.feeds.importer import ImportedReference, import_reference
from k2.testing.feed_world import FeedWorld

SAMPLE = Path(os.environ.get("K2_SAMPLE_DATA") or Path(__file__).parents[4] / "shared" / "data" / "asx")
COMPANIES = "company_id,symbol,company_name,ISIN,start_date,end_date\r\n"
DIVIDENDS = "company id,declared date,ex_date,record_date,pay_date,net amount,gross amount,currency type\r\n"
RATIOS = "company id,effective date,ratio\r\n"
ABC = '1,ABC,"A, B and C ""LTD""",AU0,01/02/2003,12/31/2020\r\n'
DIVIDEND = "1,09/25/2013,03/03/2014,03/07/2014,03/26/2014,0.59,0.842857,USD\r\n"


def directory_of(root: Path, **files: str) -> Path:
    (root / "reference").mkdir(exist_ok=True)
    for name, content in {"company_info": COMPANIES + ABC, **files}.items():
        (root / "reference" / f"{name}.csv").write_text(content, newline="")
    return root


def send(world: FeedWorld, directory: Path) -> ImportedReference:
    return import_reference(read_reference(directory), channel=world.channel, held=world.held)


def held(world: FeedWorld) -> dict[str, dict[str, Any]]:
    topic = world.topics.topic("asx", "instruments")
    return {key.decode(): record for key, record in world.held.instruments(topic).items()}


@pytest.fixture
def world(tmp_path: Path) -> FeedWorld:
    return FeedWorld(tmp_path, "asx")


def test_a_name_in_quotes_may_hold_commas(tmp_path: Path) -> None:
    (company,) = companies(directory_of(tmp_path)).values()

    assert (company.symbol, company.name, company.isin) == ("ABC", 'A, B and C "LTD"', "AU0")
    assert (company.start_date, company.end_date) == (date(2003, 1, 2), date(2020, 12, 31))


def test_a_dividend_arrives_exact_with_its_days(world: FeedWorld, tmp_path: Path) -> None:
    send(world, directory_of(tmp_path, dividends=DIVIDENDS + DIVIDEND))

    record = held(world)['["ABC", "DIVIDEND", "2014-03-03"]']

    assert (record["net_amount"], record["gross_amount"]) == (Decimal("0.59"), Decimal("0.842857"))
    assert (record["currency"], record["venue_id"], record["symbol"]) == ("USD", "1", "ABC")
    days = ("declared_date", "effective_date", "record_date", "pay_date")
    assert [record[day] for day in days] == [
        date(2013, 9, 25), date(2014, 3, 3), date(2014, 3, 7), date(2014, 3, 26),
    ]  # fmt: skip
    assert record["end_date"] is record["ratio"] is None


def test_a_ratio_is_kept_as_the_venue_states_it(world: FeedWorld, tmp_path: Path) -> None:
    send(world, directory_of(tmp_path, stock_splits=f"{RATIOS}1,07/01/2010,3:1\r\n"))

    assert held(world)['["ABC", "SPLIT", "2010-07-01"]']["ratio"] == "3:1"


def test_a_file_without_records_says_so_and_is_no_error(tmp_path: Path) -> None:
    nothing = f"{RATIOS}--- NO RECORDS TO REPORT ---\r\n"

    records = read_reference(directory_of(tmp_path, mergers=nothing, stock_splits=nothing))

    assert [json.loads(key) for key in records] == [["ABC", "LISTING", "1"]]


def test_two_dividends_of_one_day_are_two_records(world: FeedWorld, tmp_path: Path) -> None:
    directory = directory_of(tmp_path, dividends=DIVIDENDS + DIVIDEND + DIVIDEND.replace("0.59", "1"))

    first, again = send(world, directory), send(world, directory)

    assert (first.sent, again.sent) == (3, 0)
    assert held(world)['["ABC", "DIVIDEND", "2014-03-03", 1]']["net_amount"] == Decimal(1)


def test_importing_again_sends_nothing(world: FeedWorld, tmp_path: Path) -> None:
    directory = directory_of(tmp_path, dividends=DIVIDENDS + DIVIDEND)

    first, again = send(world, directory), send(world, directory)

    assert (first, again) == (ImportedReference(2, 2), ImportedReference(2, 0))


def test_a_longer_file_sends_only_what_is_new(world: FeedWorld, tmp_path: Path) -> None:
    send(world, directory_of(tmp_path))

    found = send(world, directory_of(tmp_path, company_info=f"{COMPANIES}2,XYZ,X,AU1,,\r\n{ABC}"))

    assert found == ImportedReference(2, 1)
    assert held(world)['["ABC", "LISTING", "1"]']["source_sequence"] == 2


def test_a_corrected_record_replaces_the_one_before(world: FeedWorld, tmp_path: Path) -> None:
    send(world, directory_of(tmp_path))

    found = send(world, directory_of(tmp_path, company_info=COMPANIES + ABC.replace("2020", "2021")))

    assert found.sent == 1
    assert held(world)['["ABC", "LISTING", "1"]']["end_date"] == date(2021, 12, 31)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("company_info", "", "expected the header company_id,symbol"),
        ("company_info", "03/10/2014,10:13:34.553,0.67,8216,0,,\r\n", "expected the header company_id,symbol"),
        ("company_info", COMPANIES + "1,ABC,A, B,AU0,,\r\n", r"expected 6 columns .* found 7 at .*:2"),
        ("company_info", COMPANIES + '1,"ABC\r\n', "found a mistake at .*company_info"),
        ("company_info", COMPANIES + "1,,A,AU0,,\r\n", r"a symbol of 1 to 64 bytes .*company_info\.csv:2"),
        ("company_info", COMPANIES + ABC + ABC, "each company_id once; line 2 has it, too"),
        ("company_info", COMPANIES + "1,ABC,A,AU0,31/12/2014,\r\n", "a date MM/DD/YYYY, or nothing, in column start_"),
        ("dividends", RATIOS, "expected the header company id,declared date"),
        ("dividends", DIVIDENDS + DIVIDEND.replace("1,09", "7,09"), r"a company of reference/company_info\.csv"),
        ("dividends", DIVIDENDS + DIVIDEND.replace("03/03/2014", ""), "a date MM/DD/YYYY in column ex_date"),
        ("dividends", DIVIDENDS + DIVIDEND.replace("0.59", "NaN"), "an amount with at most 12 decimals"),
        ("mergers", f"{RATIOS}1,07/01/2010,\r\n", "expected a ratio"),
    ],
)
def test_a_bad_reference_file_is_refused_with_its_line(tmp_path: Path, name: str, content: str, expected: str) -> None:
    directory = directory_of(tmp_path, **{name: content})

    with pytest.raises(ConfigurationError, match=expected):
        read_reference(directory)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"the ASX sample is absent ({SAMPLE}); name it in K2_SAMPLE_DATA")
def test_the_real_reference_data_is_read_whole(world: FeedWorld) -> None:
    found, again = send(world, SAMPLE), send(world, SAMPLE)

    assert (found, again) == (ImportedReference(6, 6), ImportedReference(6, 0))
    assert held(world)['["RIO", "DIVIDEND", "2014-03-05"]']["net_amount"] == Decimal("1.2014")
