"""What a mapping can say of one field: which column it comes from, and how its text or value is to be read."""

from __future__ import annotations

from typing import Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StrictStr, field_validator, model_validator

from k2.schemas.records import Action, FieldType, RecordType

Unit = Literal["s", "ms", "us", "ns"]


class _Source(BaseModel):
    """What all kinds have; a bare text is the name of a column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, said: Any) -> Any:
        return {"column": said} if isinstance(said, str) else said

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the file that it needs."""
        name: str | None = getattr(self, "column", None)
        return () if name is None else (name,)


class _Optional(_Source):
    empty: tuple[StrictStr, ...] = ("",)
    """Texts that mean that there is no value."""


class NumberColumn(_Optional):
    """A decimal number, exact: `scale` of a column of whole numbers says how many of their digits are decimals."""

    column: StrictStr
    scale: int = Field(default=0, ge=0, le=18, strict=True)


class IntegerColumn(_Optional):
    """A whole number."""

    column: StrictStr


class TextColumn(_Optional):
    """A text from a column, or the same for all; `values` names all texts of the column and says what each means."""

    column: StrictStr | None = None
    constant: StrictStr | None = None
    values: dict[StrictStr, StrictStr | None] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.column is None) == (self.constant is None):
            raise ValueError("either column or constant, one of the two")
        if self.values is not None and self.column is None:
            raise ValueError("values with a column; a constant has none")
        return self


class ListColumn(_Optional):
    """Several texts, in one column with a separator, or a column of lists; without either, one text."""

    column: StrictStr
    separator: StrictStr | None = Field(default=None, min_length=1)


class ExtraColumns(_Optional):
    """What else the venue sent: a column of JSON objects as they are, or columns to make one of."""

    column: StrictStr | None = None
    columns: tuple[StrictStr, ...] = ()

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.column is None) == (not self.columns):
            raise ValueError("either column (of JSON) or columns (to make JSON of), one of the two")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the file that it needs."""
        return self.columns if self.column is None else (self.column,)


class TimeColumn(_Optional):
    """A time: a number since 1970 in a unit, a text in a format, or a Parquet time, which needs neither.

    Several columns (a date and a time) are joined by a space. A `zone` reads local times; without one, the format
    must have an offset (%z, %#z), the Parquet time a zone. A local time that clocks show twice is refused unless
    `ambiguous` chooses one.
    """

    column: StrictStr | None = None
    columns: tuple[StrictStr, ...] = ()
    unit: Unit | None = None
    format: StrictStr | None = None
    zone: StrictStr | None = None
    ambiguous: Literal["refuse", "earliest", "latest"] = "refuse"

    @field_validator("zone")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        try:
            return None if name is None else ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone in the IANA database") from None

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if (self.column is None) == (not self.columns):
            raise ValueError("either column or columns (to be joined by a space), one of the two")
        if self.unit is not None and (self.format is not None or self.zone is not None or self.columns):
            raise ValueError("a unit alone with one column: a number since 1970 is UTC and needs no format and no zone")
        if self.columns and self.format is None:
            raise ValueError("a format with columns, such as '%Y-%m-%d %H:%M:%S%.f'")
        if self.format is not None and ("%z" in self.format or "%#z" in self.format) == (self.zone is not None):
            raise ValueError("a zone with a format of local times, none with a format that has an offset (%z, %#z)")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the file that it needs."""
        return self.columns if self.column is None else (self.column,)


class DateColumn(_Optional):
    """A date in a format, or a Parquet date, which needs none."""

    column: StrictStr
    format: StrictStr | None = None


Column = NumberColumn | IntegerColumn | TextColumn | ListColumn | ExtraColumns | TimeColumn | DateColumn

GIVEN: Final = ("exchange", "source", "source_sequence")
"""Fields that no column says: the mapping's exchange, the file's SHA-256, the number of the line or row."""
DEFAULTED: Final = frozenset({"ts_recv_ns", "trading_date", "action", "conditions"})
"""Fields that are not null and have a default: ts_event_ns, its day in the exchange's zone, NEW, no conditions."""
DEFAULT_ACTION: Final = TextColumn(constant=Action.NEW)

_BY_TYPE: Final[dict[FieldType, type[Column]]] = {
    FieldType.STRING: TextColumn,
    FieldType.STRINGS: ListColumn,
    FieldType.INT: IntegerColumn,
    FieldType.LONG: IntegerColumn,
    FieldType.DATE: DateColumn,
    FieldType.PRICE: NumberColumn,
    FieldType.QUANTITY: NumberColumn,
}
_BY_NAME: Final[dict[str, type[Column]]] = {
    "ts_event_ns": TimeColumn,
    "ts_recv_ns": TimeColumn,
    "extra": ExtraColumns,
}


def kinds_of(record_type: RecordType) -> dict[str, type[Column]]:
    """Return the fields of a record that a mapping can name, in the contract's order, each with its kind of column."""
    return {
        field.name: _BY_NAME.get(field.name) or _BY_TYPE[field.type]
        for field in record_type.message_fields
        if field.name not in GIVEN
    }


def required_of(record_type: RecordType) -> list[str]:
    """Return the fields that every mapping has to name."""
    return [
        field.name
        for field in record_type.message_fields
        if not field.nullable and field.name not in DEFAULTED and field.name not in GIVEN
    ]
