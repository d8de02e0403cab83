"""The checkpoints of trials on this machine: one file per trial, shared by all of its attempts.

Training is deterministic in a trial's parameters and seed, so any attempt's checkpoint serves any
later attempt. Files are replaced by rename, so even two trainers that write at the same time (one
of them fenced) leave a whole one.
"""

import json
import shutil
from pathlib import Path

from service.worker.cache_entries import Holds

STATE_FILE = "state.safetensors"
_MAX_HEADER_BYTES = 100_000_000


class Checkpoints:
    """A folder per trial."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, trial_id: str, holds: Holds) -> Path:
        """Where the trial's checkpoint lies or will lie; nothing removes it while it is held."""
        folder = self._folder / trial_id
        while True:
            folder.mkdir(exist_ok=True)
            if holds.take(folder):
                return folder / STATE_FILE

    def remove(self, trial_id: str) -> None:
        """The trial has ended for good. An agent that still holds it is fenced."""
        shutil.rmtree(self._folder / trial_id, ignore_errors=True)


def finished_epochs(path: Path) -> int | None:
    """How many epochs were finished in the checkpoint; None when there is none that can be read.

    Only the header is read: the length as 8 bytes (little endian), and JSON.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _MAX_HEADER_BYTES:
                return None
            header = json.loads(file.read(length))
        return int(header["__metadata__"]["finished_epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
