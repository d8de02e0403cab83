"""What is known of a data set once it has been read: counts, labels, and signs of trouble."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.config import Split, Task

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Facts about a normalised data set; `dataclasses.asdict` gives plain JSON values.

    What was found counts rows as they came, whatever became of them.
    """

    task: Task
    columns: dict[str, str | None]
    """Source column of ``text_a``, ``text_b`` (None: no pair), ``text_c`` and on where there are
    more, and ``label``, or how a text is made of several; of ``group`` and ``date`` where the
    splits go by them."""
    rows: dict[Split, int]
    """Rows of the normalised files."""
    dropped: dict[Split, dict[str, int]]
    """Rows left out: ``missing`` a value, ``duplicate`` of a train row, ``held_out`` (its text
    stands in validation or test), ``unseen_label``. With ``rows`` they are the rows of the file."""
    labels: tuple[str, ...]
    """In the order that every matrix uses; of `regression` the bins."""
    label_counts: dict[Split, dict[str, int]]
    """Of the normalised files."""
    missing: dict[Split, dict[str, int]]
    """Rows that lacked a ``text``, ``label``, ``group`` or ``date``, or one ``field`` of a text
    that is made of several."""
    missing_texts: dict[Split, dict[str, int]]
    """Of rows of several texts: rows that lack each, by its column."""
    duplicates: dict[Split, int]
    """Rows whose text stood in the same split before."""
    overlap: dict[Split, int]
    """Rows of validation and test whose text also stood in train."""
    test_in_validation: int
    """Rows of test whose text also stands in validation."""
    group_overlap: dict[Split, int]
    """Rows of validation and test whose group also stands in train."""
    older_than_train: dict[Split, int]
    """Rows of validation and test with a date before that of the newest train row."""
    conflicts: dict[Split, dict[str, Any]]
    """``texts`` with different labels, the ``rows`` they stand in, and ``examples``: the row
    numbers of the first few."""
    repaired: dict[Split, dict[str, int]]
    """Rows in which something was repaired, by `model.text_repair.KINDS`."""
    merged: dict[Split, dict[str, int]]
    """Of splits with any: ``rows`` that look like several which a stray quote made one, and the
    ``line`` of the first."""
    repeated_texts: int
    """Rows of the normalised train file whose text stood there before."""
    heads: dict[str, Task]
    """Of several label columns: what each one's labels are, by head. Then ``labels`` are called
    ``<head>.<label>``, head by head."""
    labelled: dict[Split, dict[str, int]]
    """Of several label columns: rows that have a label, by head."""
    words: dict[str, int]
    """Quantiles of whitespace-separated words per train row, both texts together."""
    files: dict[Split, dict[str, Any]]
    """``sha256`` and ``bytes`` of each normalised file."""


def quantiles(values: np.ndarray[Any, Any]) -> dict[str, int]:
    """Return p50, p90, p95, p99 and max of whole numbers, each a value that occurs."""
    points = np.quantile(values, list(QUANTILES.values()), method="inverted_cdf")
    return {name: int(x) for name, x in zip(QUANTILES, points, strict=True)} | {
        "max": int(values.max())
    }
