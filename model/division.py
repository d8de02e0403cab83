"""Which rows of a train file are held out, by whatever its options say: the one place for the
server and for `python -m model`.

Holds one label, hash and date per row in memory; texts are streamed.
"""

import dataclasses
from array import array
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from model.config import SPLITS, DataOptions, Task
from model.date_split import split_dates
from model.errors import InputError
from model.group_split import SplitOf, keep_in_train, split_groups
from model.labels.label_reader import LabelReader
from model.labels.readers import reader_of
from model.repeats import repeats
from model.split_tally import Hashes, as_array, text_hash
from model.splits import SplitRows, rows_of, split_positions
from model.text_columns import row_texts, text_fields

_NOWHERE = -1


def wanted_fractions(options: DataOptions, given: Collection[str]) -> DataOptions:
    """The options with a fraction of 0 for each split that has a file of its own."""
    return dataclasses.replace(
        options,
        validation_fraction=0.0 if "validation" in given else options.validation_fraction,
        test_fraction=0.0 if "test" in given else options.test_fraction,
    )


def divide_train(
    path: Path, task: Task, options: DataOptions, *, seed: int, repeated_texts: bool
) -> SplitRows:
    """Divide the rows of a normalised train file; the fraction of a split that has a file is 0.

    Without a group or a date, every class stands in each split in about its own share, and equal
    texts (``repeated_texts`` says that there are any) stay together. Where rows go by group or
    date, equal texts may fall apart; then those of train are left out, unless
    ``options.duplicates`` is `keep`, and so are held-out rows with a class that train lacks, if
    ``options.unseen`` is `drop`. The same file, options and seed give the same rows. Raises
    `InputError` ``too_few_rows``, ``unseen_label`` or ``invalid_value``.
    """
    reader = reader_of(task, options)
    labels = _labels(path)
    hashes = _text_hashes(path) if repeated_texts else None
    fractions = {
        "validation_fraction": options.validation_fraction,
        "test_fraction": options.test_fraction,
    }
    columns = pq.read_schema(path).names
    if "date" not in columns and "group" not in columns:
        if hashes is None:
            rows = reader.divide(labels, **fractions, seed=seed)
        else:
            rows = rows_of(_divide_texts(hashes, labels, reader, fractions, seed))
        return _checked(rows, options, labels, reader)
    classes = _classes(labels, reader)
    if "date" in columns:
        split_of = split_dates(_column(path, "date"), **fractions)
    else:
        split_of = split_groups(
            _column(path, "group"), reader.kinds(labels), needed=classes, **fractions, seed=seed
        )
    if hashes is not None and options.duplicates == "drop":
        split_of[(split_of == 0) & np.isin(hashes, hashes[split_of > 0])] = _NOWHERE
    _drop_unseen(split_of, classes, path, options)
    return _checked(rows_of(split_of), options, labels, reader)


def _divide_texts(
    hashes: Hashes, labels: Sequence[str], reader: LabelReader, fractions: Any, seed: int
) -> SplitOf:
    """One row of each text is shared out, that of the rarest class, and the others follow it."""
    kinds = reader.kinds(labels)
    names, counts = np.unique([kind for held in kinds for kind in held], return_counts=True)
    rows_with = dict(zip(names.tolist(), counts.tolist(), strict=True))
    rarest = np.array([min((rows_with[k] for k in held), default=len(kinds)) for held in kinds])
    order = np.argsort(rarest, kind="stable")
    first = np.sort(order[~repeats(hashes[order])])
    text_of = np.unique(hashes, return_inverse=True)[1]
    rows = reader.divide([labels[k] for k in first], **fractions, seed=seed)
    split_of_text = np.zeros(len(first), dtype=np.int8)
    for split, positions in enumerate(split_positions(rows)):
        split_of_text[text_of[first[positions]]] = split
    return keep_in_train(split_of_text[text_of], text_of, _classes(labels, reader))


def _classes(labels: Sequence[str], reader: LabelReader) -> list[Sequence[str]]:
    """Per row, the classes that train must have too; a number has none."""
    return [reader.classes_in(label) for label in labels]


def _drop_unseen(
    split_of: SplitOf, classes: Sequence[Sequence[str]], path: Path, options: DataOptions
) -> None:
    """Held-out rows with a class that no train row has leave, or are refused by name."""
    known = {name for k in np.flatnonzero(split_of == 0).tolist() for name in classes[k]}
    held_out = np.flatnonzero(split_of > 0).tolist()
    unseen = [k for k in held_out if not known.issuperset(classes[k])]
    if unseen and options.unseen == "error":
        label = next(name for name in classes[unseen[0]] if name not in known)
        row = int(_column(path, "row")[unseen[0]])
        detail = (
            f"Row {row} of train is held out and has the label {label[:80]!r}, which no row that "
            f"stays in train has ({len(unseen)} such rows). Set options.unseen to drop to leave "
            "them out."
        )
        raise InputError("unseen_label", detail, ("train", f"row {row}"))
    split_of[unseen] = _NOWHERE


def _checked(
    rows: SplitRows, options: DataOptions, labels: Sequence[str], reader: LabelReader
) -> SplitRows:
    wanted = {"validation": options.validation_fraction, "test": options.test_fraction}
    empty = [
        split for split, fraction in wanted.items() if fraction and not len(getattr(rows, split))
    ]
    if not len(rows.train):
        empty.insert(0, "train")
    if empty:
        by = f" once they are divided by options.{_rule(options)}" if _rule(options) else ""
        detail = (
            f"The rows of train leave none for {empty[0]}{by}. Give a {empty[0]} file, more rows, "
            "or other fractions."
        )
        raise InputError("too_few_rows", detail, ("train",))
    for split, positions in zip(SPLITS, split_positions(rows), strict=True):
        head = (
            reader.lacking_head([labels[k] for k in positions.tolist()]) if len(positions) else None
        )
        if head is not None:
            detail = (
                f"The rows of train that have a label of the head {head} leave none for {split}. "
                f"Label more rows for it, give a {split} file, or other fractions."
            )
            raise InputError("too_few_rows", detail, ("train", head))
    return rows


def _rule(options: DataOptions) -> str | None:
    return "group" if options.group else "date" if options.date else None


def _labels(path: Path) -> list[str]:
    """Equal labels are one object, so that a row costs a pointer."""
    column = pq.read_table(path, columns=["label"], read_dictionary=["label"])["label"]
    labels: list[str] = []
    for chunk in column.chunks:
        names = chunk.dictionary.to_pylist()
        labels += [names[k] for k in chunk.indices.to_pylist()]
    return labels


def _column(path: Path, name: str) -> npt.NDArray[Any]:
    return np.asarray(pq.read_table(path, columns=[name])[name].to_numpy())


def _text_hashes(path: Path) -> Hashes:
    found = array("Q")
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=text_fields(file.schema_arrow.names)):
            found.extend(map(text_hash, row_texts(batch)))
    return as_array(found)
