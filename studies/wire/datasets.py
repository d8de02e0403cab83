"""Data sets on the wire."""

from typing import Any

from studies.wire.base import Answer, Utc


class MissingCount(Answer):
    """Rows that lack a value, whatever became of them."""

    text: int
    label: int
    group: int = 0
    date: int = 0
    field: int = 0
    """One column or more of a text that is made of several."""


class Conflicts(Answer):
    """Equal texts with different labels."""

    texts: int
    rows: int
    examples: list[list[int]]
    """The row numbers of the first few."""


class StoredFile(Answer):
    """A normalised Parquet file of one split."""

    sha256: str
    bytes: int


class HubOrigin(Answer):
    """Which state of a hub's data set was read, last if several have the same content."""

    hub: str
    config: str
    revision: str
    """What was asked for: a branch, a tag or a commit."""
    commit: str
    """What that was when it was read."""
    splits: dict[str, str]
    """The hub's name of each split that was read."""
    left_out: dict[str, str]
    """Splits of the hub that were not, and why."""


class DatasetAnswer(Answer):
    """A data set as the reader found it, and what it made of it."""

    id: str
    name: str
    task: str
    columns: dict[str, str | None]
    options: dict[str, Any]
    """How it was read, defaults included."""
    rows: dict[str, int]
    """Rows to train on and to score."""
    dropped: dict[str, dict[str, int]] = {}
    """Rows left out, by reason: missing, duplicate, held_out (the text stands in validation or
    test), unseen_label."""
    labels: list[str]
    label_counts: dict[str, dict[str, int]]
    missing: dict[str, MissingCount]
    missing_texts: dict[str, dict[str, int]] = {}
    """Of rows of several texts: rows that lack each, by its column."""
    duplicates: dict[str, int]
    """Rows whose text stood in the same split before."""
    overlap: dict[str, int]
    """Rows whose text also stood in train."""
    test_in_validation: int = 0
    """Rows of test whose text also stands in validation."""
    group_overlap: dict[str, int] = {}
    """Rows whose group also stands in train."""
    older_than_train: dict[str, int] = {}
    """Rows with a date before that of the newest train row."""
    conflicts: dict[str, Conflicts] = {}
    repaired: dict[str, dict[str, int]] = {}
    """Rows in which something was repaired, by kind: mojibake, byte_order_mark,
    control_characters, line_breaks, unicode_form."""
    merged: dict[str, dict[str, int]] = {}
    """Of splits with any: `rows` that look like several which a stray quote made one, and the
    `line` of the first."""
    repeated_texts: int = 0
    """Rows left in train whose text stood there before: conflicts, or duplicates that were kept."""
    heads: dict[str, str] = {}
    """Of several label columns: what each one's labels are. `labels` are then `<head>.<label>`."""
    labelled: dict[str, dict[str, int]] = {}
    """Of several label columns: rows that have a label, by split and head."""
    words: dict[str, float]
    """Quantiles of words per training text: p50, p90, p95, p99, max."""
    files: dict[str, StoredFile]
    origin: HubOrigin | None = None
    """Of a hub's data set; None of an upload or of the server's own files."""
    created_at: Utc
    warnings: list[str] = []
    """What somebody who trains on it should know, in sentences."""
