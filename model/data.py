"""The only reader of training data: any accepted file in, one normalised Parquet file out.

The server normalises an upload once; workers and ``python -m model`` read the result. Equal rows
give equal bytes, so the sha256 of a normalised file names its content.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.columns import check_columns, choose_columns
from model.config import SPLITS, DataOptions, Split
from model.dataset_summary import DataSummary, quantiles
from model.dates import DateReader
from model.division import divide_train, wanted_fractions
from model.errors import InputError
from model.labels.label_reader import LabelReader
from model.labels.readers import choose_reader
from model.normalised_file import file_facts, schema_of, write_rows
from model.repeats import (
    Mask,
    count_duplicates,
    count_overlap,
    count_test_in_validation,
    find_conflicts,
    repeats,
    train_drops,
)
from model.rows import Row, RowReader
from model.sources import open_source
from model.split_tally import SplitTally, as_array
from model.splits import check_fractions, held_out_counts


def normalise(sources: Mapping[Split, Path], options: DataOptions, target: Path) -> DataSummary:
    """Write ``target/<split>.parquet`` (`model.normalised_file`) for each source and sum them up.

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
    _check_options(options)
    opened = {split: open_source(path, split, options) for split, path in sources.items()}
    found = opened["train"].columns()
    reader = choose_reader(found, options)
    _check_separator(reader, options)
    columns = choose_columns(found, options, reader)
    row_reader = RowReader(columns, reader, options, DateReader.of(options))
    tallies: dict[Split, SplitTally] = {}
    labels: tuple[str, ...] = ()
    for split, source in opened.items():
        names = source.columns()
        check_columns(split, names, columns.wanted(split, names))
        known = frozenset(labels) if split != "train" else None
        tallies[split] = tally = SplitTally()
        schema = schema_of(columns, split)
        write_rows(row_reader.rows(source, split, tally, known), _file(folder, split), schema)
        _check_not_empty(split, tally)
        if split == "train":
            labels = reader.labels(tally)
        _check_heads(split, tally, reader)
    as_found = tallies | {}
    tallies["train"] = train = _drop_from_train(
        _file(folder, "train"), schema_of(columns, "train"), tallies, reader, options
    )
    if train is not as_found["train"]:
        labels = _labels_left(reader, labels, tallies)
    repeated_texts = int(repeats(as_array(train.text_hashes)).sum())
    _check_held_out(_file(folder, "train"), reader, labels, tallies, options, repeated_texts)
    return DataSummary(
        task=reader.task,
        columns=columns.shown(),
        rows={split: tally.rows for split, tally in tallies.items()},
        dropped={split: _plain(tally.dropped) for split, tally in tallies.items()},
        labels=labels,
        label_counts={
            split: reader.label_counts(tally, labels) for split, tally in tallies.items()
        },
        missing={
            split: {"text": 0, "label": 0} | _plain(t.missing) for split, t in tallies.items()
        },
        missing_texts={
            split: {text.shown: tally.missing_texts[k] for k, text in enumerate(columns.texts)}
            for split, tally in tallies.items()
            if len(columns.texts) > 1
        },
        duplicates=count_duplicates(as_found),
        overlap=count_overlap(as_found),
        test_in_validation=count_test_in_validation(as_found),
        group_overlap={} if columns.group is None else count_overlap(as_found, "group_hashes"),
        older_than_train={} if columns.date is None else _count_older(as_found),
        conflicts={split: find_conflicts(tally) for split, tally in as_found.items()},
        repaired={split: _plain(tally.repaired) for split, tally in tallies.items()},
        merged={
            split: {"rows": len(tally.merged), "line": tally.merged[0]}
            for split, tally in as_found.items()
            if tally.merged
        },
        repeated_texts=repeated_texts,
        heads=dict(reader.heads),
        labelled={split: _plain(t.labelled) for split, t in tallies.items() if reader.heads},
        words=quantiles(np.frombuffer(train.words, dtype=np.uint32)),
        files={split: file_facts(_file(folder, split)) for split in tallies},
    )


def _count_older(tallies: Mapping[Split, SplitTally]) -> dict[Split, int]:
    """Of rows in files of their own: those from before the newest row of train."""
    newest = max(tallies["train"].dates)
    return {
        split: sum(date < newest for date in tally.dates)
        for split, tally in tallies.items()
        if split != "train"
    }


def _plain(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count}


def _check_options(options: DataOptions) -> None:
    check_fractions(options.validation_fraction, options.test_fraction)
    if options.group is not None and options.date is not None:
        detail = "Rows are divided by options.group or by options.date, not by both."
        raise InputError("invalid_value", detail, ("options", "date"))
    for name in ("missing_token", "label_separator"):
        value = getattr(options, name)
        if value is not None and (not value.strip() or "\0" in value):
            detail = f"options.{name} must be a text that is not blank; got {value!r}."
            raise InputError("invalid_value", detail, ("options", name))


def _check_separator(reader: LabelReader, options: DataOptions) -> None:
    if options.label_separator is None:
        return
    if "multi_label" not in (reader.task, *reader.heads.values()):
        detail = (
            f"options.label_separator is for rows with several labels, and the task is "
            f"{reader.task}. Set options.task to multi_label, or leave it out."
        )
        raise InputError("invalid_value", detail, ("options", "label_separator"))


def _drop_from_train(
    path: Path,
    schema: pa.Schema,
    tallies: dict[Split, SplitTally],
    reader: LabelReader,
    options: DataOptions,
) -> SplitTally:
    """Write train anew without the rows that `train_drops` finds; a second pass over it."""
    found, drops = tallies["train"], train_drops(tallies, options)
    if drops.keep.all():
        return found
    left = SplitTally(
        missing=found.missing,
        missing_texts=found.missing_texts,
        dropped=found.dropped,
        repaired=found.repaired,
    )
    left.dropped.update(duplicate=int(drops.duplicate.sum()), held_out=int(drops.held_out.sum()))
    if not drops.keep.any():
        detail = (
            "Every text of train also stands in validation or test, so no row is left to learn "
            "from; give other files, or set options.duplicates to keep."
        )
        raise InputError("no_rows", detail, ("train",))
    partial = path.with_suffix(".left")
    write_rows(_rows_left(path, drops.keep, left, reader), partial, schema)
    partial.replace(path)
    return left


def _rows_left(path: Path, keep: Mask, left: SplitTally, reader: LabelReader) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        start = 0
        for batch in file.iter_batches():
            chosen = batch.filter(pa.array(keep[start : start + batch.num_rows]))
            start += batch.num_rows
            for values in chosen.to_pylist():
                row = Row(**values)
                left.add(row.row, row.texts, row.label, row.group)
                reader.count(left, row.label)
                yield row


def _labels_left(
    reader: LabelReader, before: tuple[str, ...], tallies: dict[Split, SplitTally]
) -> tuple[str, ...]:
    """The labels of what is left of train. Raises `InputError` where others lost one."""
    labels = reader.labels(tallies["train"])
    for split, tally in tallies.items():
        lost = sorted((set(before) - set(labels)) & set(tally.labels))
        if lost:
            detail = (
                f"Every train row with the label {lost[0][:80]!r} has a text that also stands in "
                "validation or test, so dropping them leaves none. Give more rows, or set "
                "options.duplicates to keep."
            )
            raise InputError("unseen_label", detail, (split,))
    return labels


def _check_not_empty(split: Split, tally: SplitTally) -> None:
    if tally.rows == 0:
        detail = f"The {split} file has no usable row"
        reasons = [
            f"{count} without {what}" for what, count in sorted(tally.missing.items()) if count
        ]
        if unseen := tally.dropped["unseen_label"]:
            reasons.append(f"{unseen} with labels that train lacks")
        if reasons:
            detail += f" ({', '.join(reasons)})"
        raise InputError("no_rows", detail + ".", (split,))


def _check_heads(split: Split, tally: SplitTally, reader: LabelReader) -> None:
    """A head without a label in a split has no score there."""
    for head in reader.heads:
        if not tally.labelled[head]:
            detail = (
                f"No {split} row has a label of the head {head}, so it has no score there. Label "
                "some, or leave the head out of options.label_columns."
            )
            raise InputError("no_rows", detail, (split, head))


def _check_held_out(
    path: Path,
    reader: LabelReader,
    labels: tuple[str, ...],
    tallies: Mapping[Split, SplitTally],
    options: DataOptions,
    repeated_texts: int,
) -> None:
    """Without a validation file its rows come out of train, so there must be some to take."""
    wanted = wanted_fractions(options, tallies)
    if "validation" not in tallies and wanted.validation_fraction == 0:
        raise _nothing_held_out(tallies["train"], "validation")
    if wanted.validation_fraction == wanted.test_fraction == 0:
        return
    if options.group or options.date or repeated_texts or reader.heads:
        divide_train(path, reader.task, wanted, seed=0, repeated_texts=repeated_texts > 0)
        return
    counts = reader.strata(tallies["train"], labels)
    fractions = (wanted.validation_fraction, wanted.test_fraction)
    held_out: tuple[Split, Split] = ("validation", "test")
    for split, fraction, rows in zip(
        held_out, fractions, held_out_counts(counts, *fractions), strict=True
    ):
        if fraction > 0 and sum(rows) == 0:
            raise _nothing_held_out(tallies["train"], split)


def _nothing_held_out(train: SplitTally, split: Split) -> InputError:
    dropped = sum(train.dropped.values())
    read = f"left of {train.rows + dropped}, without repeats and gaps," if dropped else ""
    detail = (
        f"The {' '.join(filter(None, (str(train.rows), 'train rows', read)))} leave none for "
        f"{split}. Give a {split} file, more rows per class, or a larger options.{split}_fraction."
    )
    return InputError("too_few_rows", detail, ("train",))


def fingerprint(summary: DataSummary, options: DataOptions) -> str:
    """Return the data set's id: 16 hex characters over its rows and its held-out fractions."""
    facts: dict[str, Any] = {
        "files": {split: facts["sha256"] for split, facts in summary.files.items()},
        "validation_fraction": options.validation_fraction,
        "test_fraction": options.test_fraction,
    }
    if options.duplicates != "drop":  # equal texts of train may stand in two parts of it
        facts["duplicates"] = options.duplicates
    if options.unseen != "error" and (options.date or options.group):
        facts["unseen"] = options.unseen
    if summary.task != "single_label":  # equal rows may be read for several tasks
        facts["task"] = summary.task
    if summary.heads:
        facts["heads"] = summary.heads
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
