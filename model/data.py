"""The only reader of training data: any accepted file in, one normalised Parquet file out.

The server normalises an upload once; workers and ``python -m model`` read the result. Equal rows
give equal bytes, so the sha256 of a normalised file names its content.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.config import SPLITS, DataOptions, Split
from model.dataset_summary import (
    DataSummary,
    SplitTally,
    count_duplicates,
    count_overlap,
    quantiles,
)
from model.errors import InputError
from model.sources import Source, open_source
from model.splits import held_out_counts

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("text_a", pa.string(), nullable=False),
        pa.field("text_b", pa.string()),
        pa.field("label", pa.string(), nullable=False),
    ]
)
MAX_CLASSES = 2000
MAX_LABEL_CHARS = 200
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


class _Columns(NamedTuple):
    text_a: str
    text_b: str | None
    label: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self if name is not None)


class _Row(NamedTuple):
    row: int
    text_a: str
    text_b: str | None
    label: str


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
    columns = _choose_columns(opened["train"].columns(), options)
    tallies: dict[Split, SplitTally] = {}
    for split, source in opened.items():
        tallies[split] = SplitTally()
        known = frozenset(tallies["train"].labels) if split != "train" else None
        rows = _checked_rows(source, split, columns, options, tallies[split], known)
        _write(rows, _file(folder, split))
        _check_not_empty(split, tallies[split])
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


def _choose_columns(found: Sequence[str], options: DataOptions) -> _Columns:
    """Find the text and label columns of the train file by option, else by name."""
    if options.label is None and "label" not in found:
        _refuse_other_tasks(found)
    text_a = _column("text", options.text, ("text", "text_a"), found)
    pair = options.text_b is not None or "text_b" in found
    text_b = _column("text_b", options.text_b, ("text_b",), found) if pair else None
    columns = _Columns(text_a, text_b, _column("label", options.label, ("label",), found))
    if len(set(columns.names)) < len(columns.names):
        detail = f"Texts and label must be different columns; got {', '.join(columns.names)}."
        raise InputError("invalid_value", detail, ("options",))
    return columns


def _refuse_other_tasks(found: Sequence[str]) -> None:
    task = None
    if "labels" in found:
        task, sign = "multi_label", "a labels column"
    elif {"tokens", "tags"} <= set(found):
        task, sign = "token", "tokens and tags columns"
    if task is not None:
        detail = f"With {sign} this is a {task} data set, which is not built yet; " + (
            "give one label per row in a label column."
        )
        raise InputError("unsupported_task", detail, ("train", "header"))


def _column(option: str, chosen: str | None, usual: Sequence[str], found: Sequence[str]) -> str:
    name = chosen if chosen is not None else next((n for n in usual if n in found), None)
    if name is None or name not in found:
        wanted = repr(name) if name is not None else " or ".join(repr(n) for n in usual)
        raise _missing_column("train", wanted, option, found)
    if list(found).count(name) > 1:
        detail = f"The column {name!r} stands {list(found).count(name)} times in the header."
        raise InputError("duplicate_column", detail, ("train", "header"))
    return name


def _missing_column(split: Split, wanted: str, option: str, found: Sequence[str]) -> InputError:
    detail = (
        f"The {split} file has no column {wanted}; it has {', '.join(map(repr, found)) or 'none'}. "
        f"Name the right one in options.{option}."
    )
    if len(found) == 1 and any(mark in found[0] for mark in ";\t|"):
        detail += " If another character separates the columns, set options.delimiter."
    return InputError("missing_column", detail, ("options", option))


def _check_columns(source: Source, split: Split, columns: _Columns) -> None:
    """Every file must have the columns chosen in the train file."""
    found = source.columns()
    for option, name in zip(("text", "text_b", "label"), columns, strict=True):
        if name is not None and name not in found:
            raise _missing_column(split, repr(name), option, found)


def _checked_rows(
    source: Source,
    split: Split,
    columns: _Columns,
    options: DataOptions,
    tally: SplitTally,
    known_labels: frozenset[str] | None,
) -> Iterator[_Row]:
    """Yield the rows to keep, tallied; ``known_labels`` are those of train, for other splits."""
    _check_columns(source, split, columns)
    for row, (number, values) in enumerate(source.rows(columns.names), 1):
        where = (split, f"{source.unit} {number}")
        texts = [_plain(value, where) for value in values]
        label = (texts.pop() or "").strip()
        text_missing = not all(text is not None and text.strip() for text in texts)
        tally.missing["text"] += text_missing
        tally.missing["label"] += not label
        if text_missing or not label:
            if options.missing == "error":
                raise _missing_value(where, "label" if not label else "text")
            if options.missing == "drop" or not label:
                continue
            texts = [text if text is not None and text.strip() else "" for text in texts]
        _check_label(label, where, tally, known_labels)
        kept = _Row(row, texts[0] or "", texts[1] if columns.text_b is not None else None, label)
        try:
            tally.add(kept.text_a, kept.text_b, label)
            label.encode()
        except UnicodeEncodeError as error:
            detail = f"{where[1]} of {split} holds half of a surrogate pair, which is no text."
            raise InputError("bad_row", detail.capitalize(), where) from error
        yield kept


def _plain(value: object, where: tuple[str, str]) -> str | None:
    """Return a raw value as text: numbers as written by hand (``1``, not ``1.0``)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return str(value)
    if not isinstance(value, str):
        detail = (
            f"{where[1].capitalize()} of {where[0]} holds a {type(value).__name__} where one text "
            "or one label belongs."
        )
        raise InputError("bad_row", detail, where)
    if "\0" in value:
        detail = f"{where[1].capitalize()} of {where[0]} holds a NUL character."
        raise InputError("nul_byte", detail, where)
    return value


def _missing_value(where: tuple[str, str], what: str) -> InputError:
    detail = (
        f"{where[1].capitalize()} of {where[0]} has no {what}. Fill it, or set options.missing to "
        "drop such rows."
    )
    return InputError("missing_value", detail, where)


def _check_label(
    label: str, where: tuple[str, str], tally: SplitTally, known: frozenset[str] | None
) -> None:
    if label in tally.labels:
        return
    if known is not None and label not in known:
        detail = (
            f"{where[1].capitalize()} of {where[0]} has the label {label[:80]!r}, which no train "
            "row has; a model cannot learn it."
        )
        raise InputError("unseen_label", detail, where)
    if len(label) > MAX_LABEL_CHARS:
        detail = (
            f"{where[1].capitalize()} of {where[0]} has a label of {len(label)} characters (most: "
            f"{MAX_LABEL_CHARS}); is this the label column?"
        )
        raise InputError("bad_label", detail, where)
    if len(tally.labels) == MAX_CLASSES:
        detail = (
            f"The label column has more than {MAX_CLASSES} different values by {where[1]} of "
            f"{where[0]}; is it the right column? See options.label."
        )
        raise InputError("too_many_classes", detail, where)


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


def _write(rows: Iterator[_Row], path: Path) -> None:
    """Write in row groups whose bounds depend on the rows alone, so equal rows, equal bytes."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for chunk in _chunks(rows):
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*chunk, strict=True), SCHEMA, strict=True)
            ]
            writer.write_table(
                pa.Table.from_arrays(columns, schema=SCHEMA), row_group_size=len(chunk)
            )


def _chunks(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    chunk: list[_Row] = []
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
