"""Where files lie under BERTUNE_HOME."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folders:
    """Paths only; whoever writes a file makes its folder."""

    home: Path

    def dataset(self, dataset_id: str) -> Path:
        """`train.parquet`, `validation.parquet`, `test.parquet`, `indices-<study seed>.parquet`."""
        return self.home / "datasets" / dataset_id

    @property
    def artifacts(self) -> Path:
        """A folder per trial."""
        return self.home / "artifacts"

    def artifact(self, trial_id: str, attempt: int, name: str) -> Path:
        return self.artifacts / trial_id / str(attempt) / name

    @property
    def cache(self) -> Path:
        """Vocabularies the server made and hub files it fetched; safe to delete."""
        return self.home / "cache"

    @property
    def incoming(self) -> Path:
        """Uploads under way, on the same file system, so that publishing is a rename."""
        return self.home / "incoming"


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, outlive a power cut, as rows do."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
