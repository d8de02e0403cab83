"""Held-out rows: a stratified, seeded split of the train file when no other file is given."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.config import SPLITS
from model.errors import InputError

Positions = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class SplitRows:
    """Positions (0-based, ascending, int64) of the rows of each split in the train file.

    A row that was left out stands in none.
    """

    train: Positions
    validation: Positions
    test: Positions


def split_rows(
    labels: Sequence[str], *, validation_fraction: float, test_fraction: float, seed: int
) -> SplitRows:
    """Divide the rows so that every class stands in each split in about its own share.

    The same labels, fractions and seed give the same rows; how many each class gives is
    `held_out_counts`'s rule. Raises `InputError` ``invalid_value`` for impossible fractions.
    """
    classes, class_of, counts = np.unique(
        np.asarray(labels, dtype=object), return_inverse=True, return_counts=True
    )
    validation, test = held_out_counts(
        [int(count) for count in counts], validation_fraction, test_fraction
    )
    rng = np.random.default_rng(seed)
    split_of = np.zeros(len(labels), dtype=np.int8)  # index into SPLITS
    by_class = np.split(np.argsort(class_of, kind="stable"), np.cumsum(counts)[:-1])
    for k in range(len(classes)):
        drawn = rng.permutation(by_class[k])
        split_of[drawn[: validation[k]]] = 1
        split_of[drawn[validation[k] : validation[k] + test[k]]] = 2
    return rows_of(split_of)


def held_out_counts(
    counts: Sequence[int], validation_fraction: float, test_fraction: float
) -> tuple[list[int], list[int]]:
    """Return how many validation and test rows each class gives, from its number of rows.

    The totals are the fractions of all rows, rounded; the classes share them by the largest
    remainder. Every class keeps at least one train row; then it gives a validation row and then
    a test row as soon as it has one to spare, because macro metrics count each class. These
    bounds win over the totals.
    """
    check_fractions(validation_fraction, test_fraction)
    validation = _apportion(counts, validation_fraction, [n - 1 for n in counts])
    spare = [n - v - 1 for n, v in zip(counts, validation, strict=True)]
    return validation, _apportion(counts, test_fraction, spare)


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise `InputError` ``invalid_value`` unless both are shares and leave rows to train on."""
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    for name, value in fractions.items():
        if not 0 <= value < 1:
            detail = f"{name} must be at least 0 and below 1; got {value!r}."
            raise InputError("invalid_value", detail, ("options", name))
    if validation_fraction + test_fraction >= 1:
        detail = "validation_fraction and test_fraction together must stay below 1."
        raise InputError("invalid_value", detail, ("options", "validation_fraction"))


def _apportion(counts: Sequence[int], fraction: float, spare: Sequence[int]) -> list[int]:
    """Largest-remainder shares, each between 1 (0 when nothing is to spare) and its ``spare``."""
    if fraction == 0:
        return [0] * len(counts)
    exact = [count * fraction for count in counts]
    least = [min(1, free) for free in spare]
    shares = [
        min(max(int(want), low), free) for want, low, free in zip(exact, least, spare, strict=True)
    ]
    missing = int(sum(counts) * fraction + 0.5) - sum(shares)
    step = 1 if missing > 0 else -1
    for _ in range(abs(missing)):
        open_ = [
            k
            for k, share in enumerate(shares)
            if (share < spare[k] if step > 0 else share > least[k])
        ]
        if not open_:
            break
        k = max(open_, key=lambda k: step * (exact[k] - shares[k]))
        shares[k] += step
    return shares


def rows_of(split_of: np.ndarray[tuple[int], np.dtype[np.int8]]) -> SplitRows:
    """From the split of each row, as a position in `SPLITS`; -1 is none."""
    return SplitRows(*(np.flatnonzero(split_of == k).astype(np.int64) for k in range(len(SPLITS))))


def split_positions(rows: SplitRows) -> tuple[Positions, ...]:
    """The positions of each split, in the order of `SPLITS`."""
    return rows.train, rows.validation, rows.test


def write_rows(rows: SplitRows, path: Path) -> None:
    """Write the positions as Parquet (columns ``position``, ``split``); equal rows, equal bytes.

    The file appears whole, by a rename.
    """
    parts = split_positions(rows)
    positions = np.concatenate(parts)
    split_of = np.repeat(np.arange(len(SPLITS)), [len(part) for part in parts])
    order = np.argsort(positions, kind="stable")
    names = np.asarray(SPLITS)[split_of[order]]
    table = pa.table(
        {"position": pa.array(positions[order], pa.int64()), "split": pa.array(names, pa.string())}
    )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        partial = Path(folder, path.name)
        pq.write_table(table, partial)
        partial.replace(path)


def read_rows(path: Path) -> SplitRows:
    """Read what `write_rows` wrote."""
    with pq.ParquetFile(path) as file:
        table = file.read()
    position = table["position"].to_numpy()
    split = table["split"].to_numpy()
    return SplitRows(*(np.sort(position[split == name]).astype(np.int64) for name in SPLITS))
