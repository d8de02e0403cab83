"""The only reader of training data: any accepted file in, one normalised Parquet file out.

The server normalises an upload once; workers and ``python -m model`` read the result. Equal rows
give equal bytes, so the sha256 of a normalised file names its content.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.columns import check_columns, choose_columns
from model.config import SPLITS, DataOptions, Split
from model.dataset_summary import (
    DataSummary,
    SplitTally,
    count_duplicates,
    count_overlap,
    quantiles,
)
from model.errors import InputError
from model.rows import Row, checked_rows
from model.sources import open_source
from model.splits import held_out_counts

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("text_a", pa.string(), nullable=False),
        pa.field("text_b", pa.string()),
        pa.field("label", pa.string(), nullable=False),
    ]
)
_CHUNK_ROWS = 16384
_CHUNK_CHARS = 1 << 24


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of a normalised file; the lists and ``rows`` run in parallel."""

    text_a: list[str]
    text_b: list[str] | None
    labels: list[str]
    rows: np.ndarray[Any, np.dtype[np.int64]]
    """1-based data row in the file the split came from."""


def normalise(sources: Mapping[Split, Path], options: DataOptions, target: Path) -> DataSummary:
    """Write ``target/<split>.parquet`` (columns of `SCHEMA`) for each source and sum them up.

    ``sources`` must hold ``train``. Files are streamed. All of them appear by rename after the
    last row has been checked, so an error leaves ``target`` as it was. Raises `InputError` naming
    the split and the line (README, "Error codes").
    """
    if "train" not in sources:
        raise InputError("missing_split", "A data set needs a train file.", ("train",))
    ordered: dict[Split, Path] = {split: sources[split] for split in SPLITS if split in sources}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        partial = Path(folder)
        summary = _normalise_into(partial, ordered, options)
        target.mkdir(exist_ok=True)
        for split in ordered:
            _file(partial, split).replace(_file(target, split))
    return summary


def _file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.parquet"


def _normalise_into(
    folder: Path, sources: Mapping[Split, Path], options: DataOptions
) -> DataSummary:
    opened = {split: open_source(path, split, options) for split, path in sources.items()}
    columns = choose_columns(opened["train"].columns(), options)
    tallies: dict[Split, SplitTally] = {}
    for split, source in opened.items():
        check_columns(split, source.columns(), columns)
        known = frozenset(tallies["train"].labels) if split != "train" else None
        tallies[split] = tally = SplitTally()
        rows = checked_rows(source, split, columns, options.missing, tally, known)
        _write(rows, _file(folder, split))
        _check_not_empty(split, tally)
        if split == "train":
            _check_classes(tallies["train"], options)
    _check_held_out(tallies, options)
    return DataSummary(
        task="single_label",
        columns=columns._asdict(),
        rows={split: tally.rows for split, tally in tallies.items()},
        labels=tuple(sorted(tallies["train"].labels)),
        label_counts={s: dict(sorted(tally.labels.items())) for s, tally in tallies.items()},
        missing={split: tally.missing for split, tally in tallies.items()},
        duplicates=count_duplicates(tallies),
        overlap=count_overlap(tallies),
        words=quantiles(np.frombuffer(tallies["train"].words, dtype=np.uint32)),
        files={split: _file_facts(_file(folder, split)) for split in tallies},
    )


def _check_not_empty(split: Split, tally: SplitTally) -> None:
    if tally.rows == 0:
        missing = tally.missing
        detail = f"The {split} file has no usable row"
        if any(missing.values()):
            detail += f" ({missing['text']} without text, {missing['label']} without label)"
        raise InputError("no_rows", detail + ".", (split,))


def _check_classes(tally: SplitTally, options: DataOptions) -> None:
    if len(tally.labels) < 2:
        label = next(iter(tally.labels))
        detail = f"Every train row has the label {label!r}; a classifier needs two classes or more."
        raise InputError("one_class", detail, ("options", "label") if options.label else ("train",))


def _check_held_out(tallies: Mapping[Split, SplitTally], options: DataOptions) -> None:
    """Without a validation file its rows come out of train, so there must be some to take."""
    counts = [count for _, count in sorted(tallies["train"].labels.items())]
    validation_fraction = 0.0 if "validation" in tallies else options.validation_fraction
    test_fraction = 0.0 if "test" in tallies else options.test_fraction
    validation, test = held_out_counts(counts, validation_fraction, test_fraction)
    wanted = {
        "validation": ("validation" not in tallies, sum(validation)),
        "test": (test_fraction > 0, sum(test)),
    }
    for split, (needed, rows) in wanted.items():
        if needed and rows == 0:
            detail = (
                f"The {sum(counts)} train rows leave none for {split}. Give a {split} file, more "
                f"rows per class, or a larger options.{split}_fraction."
            )
            raise InputError("too_few_rows", detail, ("train",))


def _write(rows: Iterator[Row], path: Path) -> None:
    """Write in row groups whose bounds depend on the rows alone, so equal rows, equal bytes."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for chunk in _chunks(rows):
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*chunk, strict=True), SCHEMA, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
    with path.open("rb") as file:  # the store will name this file, so it must outlive a power cut
        os.fsync(file.fileno())


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    chars = 0
    for row in rows:
        chunk.append(row)
        chars += len(row.text_a) + len(row.text_b or "")
        if len(chunk) == _CHUNK_ROWS or chars >= _CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def _file_facts(path: Path) -> dict[str, Any]:
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
    return Examples(
        text_a=columns["text_a"],
        text_b=columns["text_b"] if paired else None,
        labels=columns["label"],
        rows=numbers[rows].astype(np.int64),
    )


def fingerprint(summary: DataSummary, options: DataOptions) -> str:
    """Return the data set's id: 16 hex characters over its rows and its held-out fractions."""
    facts = {
        "files": {split: facts["sha256"] for split, facts in summary.files.items()},
        "validation_fraction": options.validation_fraction,
        "test_fraction": options.test_fraction,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
