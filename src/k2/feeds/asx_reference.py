"""Reads ASX reference files (companies, dividends, splits, mergers) into instrument records.

Each file has a header; one without records says so in a line. Only the companies must be there. A bad line refuses all.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from k2.common.errors import ConfigurationError
from k2.schemas.instruments import DIVIDEND, LISTING, MERGER, SPLIT, instrument, instrument_key
from k2.schemas.symbols import SYMBOL_RULE, is_symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

COMPANIES_FILE: Final = "reference/company_info.csv"
DIVIDENDS_FILE: Final = "reference/dividends.csv"
SPLITS_FILE: Final = "reference/stock_splits.csv"
MERGERS_FILE: Final = "reference/mergers.csv"
COMPANY_COLUMNS: Final = ("company_id", "symbol", "company_name", "ISIN", "start_date", "end_date")
DIVIDEND_COLUMNS: Final = (
    "company id", "declared date", "ex_date", "record_date", "pay_date", "net amount", "gross amount", "currency type",
)  # fmt: skip
RATIO_COLUMNS: Final = ("company id", "effective date", "ratio")
NOTHING: Final = "--- NO RECORDS TO REPORT ---"
_EXCHANGE: Final = "asx"
_DATE: Final = re.compile(r"(\d{2})/(\d{2})/(\d{4})")
_AMOUNT: Final = re.compile(r"-?\d{1,16}(\.\d{1,12})?")


@dataclass(frozen=True, slots=True)
class Company:
    """One line of the companies: the venue's number is the key of the other files and the name of the tick files."""

    symbol: str
    name: str
    isin: str
    start_date: date | None
    end_date: date | None
    source: str
    line: int


def companies(directory: Path) -> dict[str, Company]:
    """Return the companies by number; ConfigurationError where the file is absent, or a line is bad."""
    found: dict[str, Company] = {}
    for row in _rows(directory / COMPANIES_FILE, COMPANY_COLUMNS):
        number, symbol = row.text("company_id"), row.text("symbol")
        if not number or not is_symbol(symbol):
            raise row.bad(f"a company_id, and {SYMBOL_RULE}")
        if number in found:
            raise row.bad(f"each company_id once; line {found[number].line} has it, too")
        found[number] = Company(
            symbol=symbol,
            name=row.text("company_name"),
            isin=row.text("ISIN"),
            start_date=row.day_or_none("start_date"),
            end_date=row.day_or_none("end_date"),
            source=row.source,
            line=row.line,
        )
    return found


def read_reference(directory: Path) -> dict[bytes, dict[str, Any]]:
    """Return the instrument records of a directory by the key under which the log has them.

    Raises:
        ConfigurationError: a file is not what it should be; names it and the line.
    """
    known = companies(directory)
    records = [*map(_listing, known, known.values())]
    for name, columns, read in (
        (DIVIDENDS_FILE, DIVIDEND_COLUMNS, _dividend),
        (SPLITS_FILE, RATIO_COLUMNS, _ratio_of(SPLIT)),
        (MERGERS_FILE, RATIO_COLUMNS, _ratio_of(MERGER)),
    ):
        path = directory / name
        if path.exists():
            records += [read(row, known) for row in _rows(path, columns)]
    seen: Counter[bytes] = Counter()
    keyed = {}
    for record in records:
        first = instrument_key(record)
        keyed[instrument_key(record, place=seen[first])] = record
        seen[first] += 1
    return keyed


def _listing(number: str, company: Company) -> dict[str, Any]:
    return instrument(
        LISTING,
        exchange=_EXCHANGE,
        symbol=company.symbol,
        venue_id=number,
        effective_date=company.start_date,
        end_date=company.end_date,
        name=company.name or None,
        isin=company.isin or None,
        source=company.source,
        source_sequence=company.line,
    )


def _dividend(row: _Row, known: Mapping[str, Company]) -> dict[str, Any]:
    return instrument(
        DIVIDEND,
        exchange=_EXCHANGE,
        **row.company(known),
        effective_date=row.day("ex_date"),
        declared_date=row.day_or_none("declared date"),
        record_date=row.day_or_none("record_date"),
        pay_date=row.day_or_none("pay_date"),
        net_amount=row.amount_or_none("net amount"),
        gross_amount=row.amount_or_none("gross amount"),
        currency=row.text("currency type") or None,
        source=row.source,
        source_sequence=row.line,
    )


def _ratio_of(kind: str) -> Callable[[_Row, Mapping[str, Company]], dict[str, Any]]:
    def read(row: _Row, known: Mapping[str, Company]) -> dict[str, Any]:
        if not row.text("ratio"):
            raise row.bad("a ratio")
        return instrument(
            kind,
            exchange=_EXCHANGE,
            **row.company(known),
            effective_date=row.day("effective date"),
            ratio=row.text("ratio"),
            source=row.source,
            source_sequence=row.line,
        )

    return read


@dataclass(frozen=True, slots=True)
class _Row:
    path: Path
    source: str
    line: int
    cells: Mapping[str, str]

    def text(self, name: str) -> str:
        return self.cells[name]

    def day(self, name: str) -> date:
        found = self.day_or_none(name)
        if found is None:
            raise self.bad(f"a date MM/DD/YYYY in column {name}")
        return found

    def day_or_none(self, name: str) -> date | None:
        text = self.cells[name]
        if not text:
            return None
        parts = _DATE.fullmatch(text)
        try:
            if parts:
                return date(int(parts[3]), int(parts[1]), int(parts[2]))
        except ValueError:
            pass
        raise self.bad(f"a date MM/DD/YYYY, or nothing, in column {name}")

    def amount_or_none(self, name: str) -> Decimal | None:
        text = self.cells[name]
        if text and not _AMOUNT.fullmatch(text):
            raise self.bad(f"an amount with at most 12 decimals, or nothing, in column {name}")
        return Decimal(text) if text else None

    def company(self, known: Mapping[str, Company]) -> dict[str, str]:
        number = self.cells["company id"]
        if number not in known:
            raise self.bad(f"a company of {COMPANIES_FILE}")
        return {"venue_id": number, "symbol": known[number].symbol}

    def bad(self, expected: str) -> ConfigurationError:
        found = ",".join(self.cells.values())[:120]
        return ConfigurationError(
            f"expected {expected}, found {found!r} at {self.path}:{self.line}; nothing was sent. "
            "Mend or remove the line"
        )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    """Yield the rows below the header; names in quotes may hold commas."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"expected a CSV file at {path}, found bytes that are no text (at {error.start})"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    source = hashlib.sha256(content).hexdigest()
    try:
        header = next(reader, [])
        if tuple(header) != columns:
            raise ConfigurationError(
                f"expected the header {','.join(columns)} in {path}, found {','.join(header)[:120]!r}"
            )
        for cells in reader:
            if cells == [NOTHING]:
                continue
            if len(cells) != len(columns):
                raise ConfigurationError(
                    f"expected {len(columns)} columns ({', '.join(columns)}), found {len(cells)} at "
                    f"{path}:{reader.line_num}; nothing was sent. Mend or remove the line"
                )
            yield _Row(path, source, reader.line_num, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise ConfigurationError(f"expected CSV, found a mistake at {path}:{reader.line_num}: {error}") from error
