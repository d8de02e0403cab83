"""Held-out rows: which rows of a train file are validation and test when no such file was given.

The rows follow from the data set and the study's seed, never from a trial's, so that all trials
of a study are scored on the same rows.
"""

import hashlib
from dataclasses import dataclass

import pyarrow.parquet as pq

from model.splits import SplitRows, read_rows, split_rows, write_rows
from service.folders import Folders, sync
from service.store.datasets import INDICES_PREFIX
from service.store.tables import Dataset


@dataclass(frozen=True, slots=True)
class SplitFile:
    """`indices-<seed>.parquet` in a data set's folder."""

    name: str
    sha256: str
    bytes: int
    rows: int


def needs_indices(dataset: Dataset) -> bool:
    """Whether some split must be taken out of the train file."""
    given = dataset.summary["files"]
    return "validation" not in given or ("test" not in given and _test_fraction(dataset) > 0)


def _test_fraction(dataset: Dataset) -> float:
    return float(dataset.options["test_fraction"])


def write_indices(folders: Folders, dataset: Dataset, seed: int) -> SplitFile:
    """Make the file, unless it is there, and describe it. Takes a moment on large data."""
    name = f"{INDICES_PREFIX}{seed}"
    path = folders.dataset(dataset.id) / f"{name}.parquet"
    if not path.is_file():
        write_rows(divide(folders, dataset, seed), path)
        sync(path)
        sync(path.parent)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return SplitFile(name, sha256, path.stat().st_size, dataset.summary["rows"]["train"])


def divide(folders: Folders, dataset: Dataset, seed: int) -> SplitRows:
    """The rows of each split in the train file, all of them train where a file was given."""
    folder = folders.dataset(dataset.id)
    stored = folder / f"{INDICES_PREFIX}{seed}.parquet"
    if stored.is_file():
        return read_rows(stored)
    labels = pq.read_table(folder / "train.parquet", columns=["label"])["label"].to_pylist()
    given = dataset.summary["files"]
    return split_rows(
        labels,
        validation_fraction=(
            0.0 if "validation" in given else dataset.options["validation_fraction"]
        ),
        test_fraction=0.0 if "test" in given else _test_fraction(dataset),
        seed=seed,
    )
