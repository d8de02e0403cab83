"""The normalised file of a split: what is written, byte for byte, and how it is read again."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.columns import Columns
from model.config import Split
from model.rows import Row
from model.text_columns import MORE

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("text_a", pa.string(), nullable=False),
        pa.field("text_b", pa.string()),
        pa.field("label", pa.string(), nullable=False),
    ]
)
DIVIDING = {
    "group": pa.field("group", pa.uint64(), nullable=False),
    "date": pa.field("date", pa.int64(), nullable=False),
}
"""Further columns of a train file that is divided by them."""
MORE_TEXTS = pa.field(MORE, pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False)
"""The third text and those after it, in the files of a data set with so many text columns."""
_CHUNK_ROWS = 16384
_CHUNK_CHARS = 1 << 24


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of a normalised file; the lists and ``rows`` run in parallel."""

    text_a: list[str]
    text_b: list[str] | None
    labels: list[str]
    """In the canonical form of the task's `LabelReader`."""
    rows: np.ndarray[Any, np.dtype[np.int64]]
    """1-based data row in the file the split came from."""
    more: tuple[list[str], ...] = ()
    """The third text column and those after it."""

    @property
    def texts(self) -> tuple[list[str], ...]:
        """All texts, column by column."""
        return (self.text_a, *(() if self.text_b is None else (self.text_b,)), *self.more)


def schema_of(columns: Columns, split: Split) -> pa.Schema:
    """`SCHEMA`, with what this data set's columns add to it."""
    fields = list(SCHEMA)
    if columns.more:
        fields.append(MORE_TEXTS)
    if split == "train":
        fields += [field for name, field in DIVIDING.items() if getattr(columns, name) is not None]
    return pa.schema(fields)


def write_rows(rows: Iterator[Row], path: Path, schema: pa.Schema) -> None:
    """Write in row groups whose bounds depend on the rows alone, so equal rows, equal bytes."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in _chunks(rows):
            columns = [
                pa.array([getattr(row, field.name) for row in chunk], field.type)
                for field in schema
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    with path.open("rb") as file:  # the store will name this file, so it must outlive a power cut
        os.fsync(file.fileno())


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    chars = 0
    for row in rows:
        chunk.append(row)
        chars += sum(map(len, row.texts))
        if len(chunk) == _CHUNK_ROWS or chars >= _CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def file_facts(path: Path) -> dict[str, Any]:
    """The file's sha256 and bytes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def read_examples(path: Path, rows: np.ndarray[Any, np.dtype[np.int64]] | None = None) -> Examples:
    """Read a normalised file, all of it or the 0-based positions ``rows``, in their order.

    Raises `IndexError` for a position the file does not have.
    """
    with pq.ParquetFile(path) as file:
        table = file.read()
    numbers = table["row"].to_numpy()
    if rows is None:
        rows = np.arange(len(numbers))
    elif rows.size and not 0 <= rows.min() <= rows.max() < len(numbers):
        raise IndexError(f"{path.name} has {len(numbers)} rows; asked for {rows.max()}")
    columns = {
        name: [column[position] for position in rows]
        for name in ("text_a", "text_b", "label")
        for column in (table[name].to_pylist(),)
    }
    paired = table["text_b"].null_count == 0
    more: list[list[str]] = []
    if MORE in table.column_names:
        further = table[MORE].to_pylist()
        more = [list(column) for column in zip(*(further[k] for k in rows), strict=True)]
    return Examples(
        text_a=columns["text_a"],
        text_b=columns["text_b"] if paired else None,
        labels=columns["label"],
        rows=numbers[rows].astype(np.int64),
        more=tuple(more),
    )
