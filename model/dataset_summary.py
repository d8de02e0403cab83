"""What is known of a data set once it has been read: counts, labels, and signs of trouble.

The tallies take 12 bytes a row beside the label counts, so a large file can be summed up while
it streams past.
"""

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.config import Split, Task

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Facts about a normalised data set; `dataclasses.asdict` gives plain JSON values."""

    task: Task
    columns: dict[str, str | None]
    """Source column of ``text_a``, ``text_b`` (None: no pair) and ``label``."""
    rows: dict[Split, int]
    labels: tuple[str, ...]
    """Sorted; the order every matrix uses."""
    label_counts: dict[Split, dict[str, int]]
    missing: dict[Split, dict[str, int]]
    """Rows that lacked a ``text`` or a ``label``, whatever the policy did with them."""
    duplicates: dict[Split, int]
    """Rows whose text stood in the same split before."""
    overlap: dict[Split, int]
    """Rows of validation and test whose text also stands in train."""
    words: dict[str, int]
    """Quantiles of whitespace-separated words per train row, both texts together."""
    files: dict[Split, dict[str, Any]]
    """``sha256`` and ``bytes`` of each normalised file."""


@dataclass(slots=True)
class SplitTally:
    """Running counts of one split."""

    labels: Counter[str] = field(default_factory=Counter)
    missing: dict[str, int] = field(default_factory=lambda: {"text": 0, "label": 0})
    text_hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    words: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, text_a: str, text_b: str | None, label: str) -> None:
        """Count a kept row. Raises `UnicodeEncodeError` when a part holds a lone surrogate."""
        label.encode()
        self.labels[label] += 1
        self.text_hashes.append(_text_hash(text_a, text_b))
        self.words.append(len(text_a.split()) + (0 if text_b is None else len(text_b.split())))

    @property
    def rows(self) -> int:
        return len(self.words)

    def distinct_hashes(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.unique(np.frombuffer(self.text_hashes, dtype=np.uint64))


def _text_hash(text_a: str, text_b: str | None) -> int:
    digest = hashlib.blake2b(text_a.encode(), digest_size=8)
    if text_b is not None:
        digest.update(b"\0" + text_b.encode())  # no text holds a NUL, so pairs do not run together
    return int.from_bytes(digest.digest(), "little")


def count_duplicates(tallies: dict[Split, SplitTally]) -> dict[Split, int]:
    """Return per split how many rows repeat an earlier row's text."""
    return {split: tally.rows - len(tally.distinct_hashes()) for split, tally in tallies.items()}


def count_overlap(tallies: dict[Split, SplitTally]) -> dict[Split, int]:
    """Return per held-out split how many rows have a text of the train split."""
    train = tallies["train"].distinct_hashes()
    return {
        split: int(np.isin(np.frombuffer(tally.text_hashes, dtype=np.uint64), train).sum())
        for split, tally in tallies.items()
        if split != "train"
    }


def quantiles(values: np.ndarray[Any, Any]) -> dict[str, int]:
    """Return p50, p90, p95, p99 and max of whole numbers, each a value that occurs."""
    points = np.quantile(values, list(QUANTILES.values()), method="inverted_cdf")
    return {name: int(x) for name, x in zip(QUANTILES, points, strict=True)} | {
        "max": int(values.max())
    }
