"""Data sets on the wire."""

from studies.wire.base import Answer, Utc


class MissingCount(Answer):
    text: int
    label: int


class StoredFile(Answer):
    """A normalised Parquet file of one split."""

    sha256: str
    bytes: int


class DatasetAnswer(Answer):
    """A data set as the reader found it; counts are rows after the missing-value policy."""

    id: str
    name: str
    task: str
    columns: dict[str, str | None]
    rows: dict[str, int]
    labels: list[str]
    label_counts: dict[str, dict[str, int]]
    missing: dict[str, MissingCount]
    duplicates: dict[str, int]
    overlap: dict[str, int]
    words: dict[str, float]
    """Quantiles of words per training text: p50, p90, p95, p99, max."""
    files: dict[str, StoredFile]
    created_at: Utc
