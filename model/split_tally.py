"""Running counts of one split while it streams past.

Beside the label counts they take 28 bytes a row, 36 with groups or dates: a file of ten million
rows costs 280 MB, whatever its texts weigh.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


@dataclass(slots=True)
class SplitTally:
    """What `model.rows` saw of a split; the arrays hold one entry per kept row."""

    labels: Counter[str] = field(default_factory=Counter)
    """How often each class stands there, counted by the task's `LabelReader`."""
    missing: Counter[str] = field(default_factory=Counter)
    """Rows that lack a ``text``, ``label``, ``group`` or ``date``, or a ``field`` of a text that
    is made of several."""
    missing_texts: Counter[int] = field(default_factory=Counter)
    """Of several text columns: rows that lack each, by its place."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by reason."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Rows in which something was repaired, by `model.text_repair.KINDS`."""
    merged: "array[int]" = field(default_factory=lambda: array("Q"))
    """Places of rows that look like several which a stray quote made one."""
    labelled: Counter[str] = field(default_factory=Counter)
    """Of several label columns: rows that have a label, by head."""
    heads: "dict[str, SplitTally]" = field(default_factory=dict)
    """Of several label columns: the labels of each head alone."""
    values: "array[float]" = field(default_factory=lambda: array("d"))
    """The labels of a task whose labels are numbers."""
    numbers: "array[int]" = field(default_factory=lambda: array("Q"))
    """The rows' numbers in their source."""
    text_hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    row_hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    """Of texts and label together."""
    group_hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    dates: "array[int]" = field(default_factory=lambda: array("q"))
    """Microseconds since 1970, of the rows that have one."""
    words: "array[int]" = field(default_factory=lambda: array("I"))

    def add(
        self,
        number: int,
        texts: Sequence[str],
        label: str,
        group: int | None = None,
        date: int | None = None,
    ) -> None:
        """Count a kept row's texts. Raises `UnicodeEncodeError` for a lone surrogate anywhere."""
        label_bytes = label.encode()
        digest = _text_digest(texts)
        self.text_hashes.append(int.from_bytes(digest.digest(), "little"))
        digest.update(b"\0" + label_bytes)
        self.row_hashes.append(int.from_bytes(digest.digest(), "little"))
        self.numbers.append(number)
        self.words.append(sum(len(text.split()) for text in texts))
        if group is not None:
            self.group_hashes.append(group)
        if date is not None:
            self.dates.append(date)

    def of_head(self, head: str) -> "SplitTally":
        """The labels of one of several columns."""
        return self.heads.setdefault(head, SplitTally())

    @property
    def rows(self) -> int:
        return len(self.words)


def text_hash(texts: Sequence[str]) -> int:
    """64 bits that are equal for equal texts of a row, whatever white space stands between their
    words; different ones in a billion rows have a chance of some percent to share them."""
    return int.from_bytes(_text_digest(texts).digest(), "little")


def _text_digest(texts: Sequence[str]) -> Any:
    # No text holds a NUL, so texts do not run together.
    plain = "\0".join(" ".join(text.split()) for text in texts)
    return hashlib.blake2b(plain.encode(), digest_size=8)


def as_array(values: "array[int]") -> Hashes:
    """The values without a copy."""
    return np.frombuffer(values, dtype=np.dtype(f"u{values.itemsize}"))
