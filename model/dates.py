"""The time of a row, in whatever form a file states it."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from model.cells import Where, as_text, at
from model.config import DataOptions
from model.errors import InputError

_UNIX_UNITS = {"unix": timedelta(seconds=1), "unix_ms": timedelta(milliseconds=1)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class DateReader:
    """Reads a cell as microseconds since 1970, UTC."""

    format: str | None
    zone: tzinfo
    """Of dates that state no offset; the earlier time where clocks show one twice."""

    @classmethod
    def of(cls, options: DataOptions) -> Self:
        """Raises `InputError` ``invalid_value`` for a zone or a format that does not exist."""
        if options.date_format is not None and options.date_format not in _UNIX_UNITS:
            _check_format(options.date_format)
        try:
            return cls(options.date_format, ZoneInfo(options.timezone))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            detail = f"There is no time zone {options.timezone!r}; write it as Europe/Berlin."
            raise InputError("invalid_value", detail, ("options", "timezone")) from error

    def read(self, cell: object, where: Where) -> int | None:
        """None when the cell is empty. Raises `InputError` ``bad_date``."""
        moment = cell
        try:
            if not isinstance(cell, date):
                text = as_text(cell, where).strip()
                if not text:
                    return None
                moment = self._parsed(text)
            if not isinstance(moment, datetime):
                assert isinstance(moment, date)
                moment = datetime(moment.year, moment.month, moment.day)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=self.zone)
            return (moment - _EPOCH) // _MICROSECOND
        except (ValueError, ArithmeticError) as error:
            if isinstance(error, InputError):
                raise
            detail = f"{at(where)} has the date {str(cell)[:80]!r}, which is not {self._wanted()}."
            raise InputError("bad_date", detail, where) from error

    def _parsed(self, text: str) -> datetime:
        if self.format is None:
            return datetime.fromisoformat(text)
        if self.format in _UNIX_UNITS:
            count = Decimal(text)
            unit = _UNIX_UNITS[self.format] // _MICROSECOND
            return _EPOCH + timedelta(microseconds=int(count * unit))
        return datetime.strptime(text, self.format)

    def _wanted(self) -> str:
        if self.format is None:
            return "ISO 8601 (2026-03-01 or 2026-03-01T09:30:00+01:00); set options.date_format"
        if self.format in _UNIX_UNITS:
            return f"a number as options.date_format {self.format} wants it"
        return f"of the options.date_format {self.format!r}"


def _check_format(format_: str) -> None:
    """What it writes it must be able to read."""
    try:
        datetime.strptime(_EPOCH.strftime(format_), format_)
    except (ValueError, re.error) as error:
        detail = (
            f"options.date_format {format_!r} cannot be used ({error}). Write it as "
            "%d.%m.%Y %H:%M, or take unix or unix_ms; without it dates are read as ISO 8601."
        )
        raise InputError("invalid_value", detail, ("options", "date_format")) from error
