"""The file formats a data set may come in, read as streams of rows.

A source yields raw values only; what is a text, a label or a missing value is `model.data`'s
business. Nothing here holds more than one row or one Parquet batch in memory.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from model.config import DataOptions, Quoting
from model.errors import InputError
from model.lines import check_encoding, read_lines

Format = Literal["csv", "tsv", "jsonl", "parquet"]
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}

_MAX_FIELD_CHARS = 1 << 26
"""A longer CSV field means a quote left open, which would swallow the rest of the file."""
_BATCH_ROWS = 4096
_NAMING_ROWS = 1000

Row = tuple[int, tuple[object, ...]]
"""Where the row stands (a 1-based line or row number) and its values."""


class Source(Protocol):
    """One file of a data set."""

    @property
    def unit(self) -> Literal["line", "row"]:
        """What the number of a `Row` counts."""

    def columns(self) -> tuple[str, ...]:
        """Column names in file order. Raises `InputError` ``empty_file``."""

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Yield the named columns of every row, in ``names``' order."""

    def seems_merged(self, values: Sequence[object]) -> bool:
        """Whether a row's values look like several rows that a stray quote made one."""


def open_source(path: Path, split: str, options: DataOptions) -> Source:
    """Return the reader for ``path``, by ``options.format`` or the file name's ending.

    Raises `InputError` ``no_file``, ``empty_file``, ``unknown_format``, ``unknown_encoding`` or
    ``invalid_value`` (the delimiter).
    """
    format_ = options.format or ENDINGS.get(path.suffix.lower())
    if format_ is None:
        known = ", ".join(ENDINGS)
        detail = f"{path.name} has none of the known endings ({known}); set options.format."
        raise InputError("unknown_format", detail, (split,))
    if not path.is_file():
        raise InputError("no_file", f"There is no file {path}.", (split,))
    if path.stat().st_size == 0:
        raise _empty_file(split)
    if format_ == "parquet":
        return ParquetSource(path, split)
    check_encoding(options.encoding)
    if format_ == "jsonl":
        return JsonLinesSource(path, split, options.encoding)
    delimiter = options.delimiter or ("\t" if format_ == "tsv" else ",")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        detail = f"The delimiter must be one character, not a quote or line end; got {delimiter!r}."
        raise InputError("invalid_value", detail, ("options", "delimiter"))
    return DelimitedSource(path, split, options.encoding, delimiter, options.quoting)


def _empty_file(split: str) -> InputError:
    return InputError("empty_file", f"The {split} file is empty.", (split,))


@dataclass(frozen=True, slots=True)
class DelimitedSource:
    """CSV and TSV with a header line; fields may be quoted, and then hold line ends."""

    path: Path
    split: str
    encoding: str
    delimiter: str
    quoting: Quoting = "minimal"
    unit: Literal["line", "row"] = "line"

    def columns(self) -> tuple[str, ...]:
        for _, fields in self._records():
            return tuple(name.strip() for name in fields)
        raise _empty_file(self.split)

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        records = self._records()
        header = [name.strip() for name in next(records)[1]]
        picks = [header.index(name) for name in names]
        for line, fields in records:
            if len(fields) != len(header):
                detail = (
                    f"Line {line} of {self.split} has {len(fields)} fields where the header has "
                    f"{len(header)}; is a {self.delimiter!r} or a quote not escaped?"
                )
                raise InputError("bad_row", detail, (self.split, f"line {line}"))
            yield line, tuple(fields[pick] for pick in picks)

    def seems_merged(self, values: Sequence[object]) -> bool:
        """Tabs and line ends in one field: whoever separates by tabs seldom has both in a text.

        Of commas nothing can be said, which stand in most texts of several lines.
        """
        return self.delimiter == "\t" and any(
            "\t" in value and ("\n" in value or "\r" in value)
            for value in values
            if isinstance(value, str)
        )

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (first line, fields); blank lines are no rows."""
        csv.field_size_limit(_MAX_FIELD_CHARS)
        lines = read_lines(self.path, self.split, self.encoding, newline="")
        reader = csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quoting == "minimal" else csv.QUOTE_NONE,
            strict=True,
        )
        line = 1
        try:
            for fields in reader:
                if fields:
                    yield line, fields
                line = reader.line_num + 1
        except csv.Error as error:
            detail = (
                f"The row that starts at line {line} of {self.split} cannot be read ({error}); "
                "is a quote left open or not doubled? Where quotes are characters like any other, "
                "set options.quoting to none."
            )
            raise InputError("bad_row", detail, (self.split, f"line {line}")) from error


@dataclass(frozen=True, slots=True)
class JsonLinesSource:
    """One JSON object per line; the first `_NAMING_ROWS` name the columns, and each may lack some:
    many writers leave out what is null."""

    path: Path
    split: str
    encoding: str
    unit: Literal["line", "row"] = "line"

    def columns(self) -> tuple[str, ...]:
        names: dict[str, None] | None = None
        for _, record in islice(self._records(), _NAMING_ROWS):
            names = (names or {}) | dict.fromkeys(record)
        if names is None:
            raise _empty_file(self.split)
        return tuple(names)

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        pairs = None
        for line, record in self._records():
            if pairs is None:
                pairs = "text_b" in record
            if "text_b" in record and not pairs:
                # a second text that only later rows carry would be left out unseen
                detail = f"Line {line} of {self.split} has text_b but the first row has none."
                raise InputError("bad_row", detail, (self.split, f"line {line}"))
            yield line, tuple(record.get(name) for name in names)

    def seems_merged(self, values: Sequence[object]) -> bool:  # noqa: ARG002
        return False

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        lines = read_lines(self.path, self.split, self.encoding, newline="\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, self._parse(line, number)

    def _parse(self, line: str, number: int) -> dict[str, Any]:
        where = (self.split, f"line {number}")
        try:
            record = json.loads(
                line, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant
            )
        except _DuplicateKeyError as error:
            detail = f"Line {number} of {self.split} has the key {error.args[0]!r} twice."
            raise InputError("duplicate_column", detail, where) from error
        except (ValueError, RecursionError) as error:
            detail = f"Line {number} of {self.split} is not JSON: {error}."
            raise InputError("bad_json", detail, where) from error
        if not isinstance(record, dict):
            detail = f'Line {number} of {self.split} is not a JSON object such as {{"text": "…"}}.'
            raise InputError("bad_json", detail, where)
        return record


class _DuplicateKeyError(Exception):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file, read in batches."""

    path: Path
    split: str
    unit: Literal["line", "row"] = "row"

    def columns(self) -> tuple[str, ...]:
        try:
            return tuple(pq.read_schema(self.path).names)
        except (pa.ArrowException, OSError, ValueError) as error:  # a name that is not UTF-8
            raise self._unreadable(error) from error

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        number = 0
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(names))):
                    columns = (_in_microseconds(batch[name]).to_pylist() for name in names)
                    for values in zip(*columns, strict=True):
                        number += 1
                        yield number, values
        except UnicodeDecodeError as error:
            rows = f"one of the rows {number + 1} to {number + _BATCH_ROWS}"
            detail = f"In {self.split}, {rows} holds a string that is not UTF-8."
            raise InputError("not_utf8", detail, (self.split, f"row {number + 1}")) from error
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        except (ValueError, OverflowError) as error:
            rows = f"one of the rows {number + 1} to {number + _BATCH_ROWS}"
            detail = f"In {self.split}, {rows} holds a value that cannot be read: {error}."
            raise InputError("bad_row", detail, (self.split, f"row {number + 1}")) from error

    def seems_merged(self, values: Sequence[object]) -> bool:  # noqa: ARG002
        return False

    def _unreadable(self, error: Exception) -> InputError:
        detail = f"The {self.split} file is no readable Parquet file: {error}."
        return InputError("bad_parquet", detail, (self.split,))


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Python's times know no nanoseconds; what reads such columns depends on what is installed."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return column.cast(pa.time64("us"), safe=False)
    return column
