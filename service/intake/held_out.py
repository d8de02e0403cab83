"""Held-out rows: which rows of a train file are validation and test when no such file was given.

The rows follow from the data set and the study's seed, never from a trial's, so that all trials
of a study are scored on the same rows.
"""

import hashlib
from dataclasses import dataclass
from typing import cast

import pyarrow.parquet as pq

from model.config import SPLITS, Task
from model.division import divide_train, wanted_fractions
from model.splits import SplitRows, read_rows, split_positions, write_rows
from service.folders import Folders, sync
from service.intake.dataset_facts import stored_options
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
    return "validation" not in given or (
        "test" not in given and stored_options(dataset).test_fraction > 0
    )


def write_indices(folders: Folders, dataset: Dataset, seed: int) -> SplitFile:
    """Make the file, unless it is there, and describe it. Takes a moment on large data.

    Raises as `divide` does.
    """
    name = f"{INDICES_PREFIX}{seed}"
    path = folders.dataset(dataset.id) / f"{name}.parquet"
    if not path.is_file():
        write_rows(divide(folders, dataset, seed), path)
        sync(path)
        sync(path.parent)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return SplitFile(name, sha256, path.stat().st_size, pq.read_metadata(path).num_rows)


def divide(folders: Folders, dataset: Dataset, seed: int) -> SplitRows:
    """The rows of each split in the train file, all of them train where a file was given.

    Raises what `divide_train` raises, where rows go by group and the seed leaves a split none.
    """
    folder = folders.dataset(dataset.id)
    stored = folder / f"{INDICES_PREFIX}{seed}.parquet"
    if stored.is_file():
        return read_rows(stored)
    return divide_train(
        folder / "train.parquet",
        cast(Task, dataset.task),
        wanted_fractions(stored_options(dataset), dataset.summary["files"]),
        seed=seed,
        repeated_texts=dataset.summary.get("repeated_texts", 0) > 0,
    )


def split_sizes(folders: Folders, dataset: Dataset, seed: int) -> dict[str, int]:
    """The rows of each split of a study with this seed. Raises as `divide` does."""
    sizes = dict(dataset.summary["rows"])
    if needs_indices(dataset):
        parts = zip(SPLITS, split_positions(divide(folders, dataset, seed)), strict=True)
        sizes |= {split: len(rows) for split, rows in parts if split == "train" or len(rows)}
    return {split: sizes[split] for split in SPLITS if split in sizes}
