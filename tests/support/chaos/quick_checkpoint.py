"""The quick trainer's checkpoint: how many epochs are finished, where agents look for it."""

import contextlib
import json
from pathlib import Path


def save(path: str, finished_epochs: int) -> None:
    """Write a safetensors file without a tensor; it appears whole.

    As with the real trainer, one that cannot be written is done without: the folder goes when
    another worker on this cache ends the trial, which this process may have slept through.
    """
    header = json.dumps({"__metadata__": {"finished_epochs": str(finished_epochs)}}).encode()
    written = Path(f"{path}.new")
    with contextlib.suppress(FileNotFoundError):
        written.write_bytes(len(header).to_bytes(8, "little") + header)
        written.replace(path)


def load(path: str | None) -> int | None:
    """The finished epochs of the checkpoint at ``path``, if there is one to go on from."""
    if path is None:
        return None
    header = json.loads(Path(path).read_bytes()[8:])
    return int(header["__metadata__"]["finished_epochs"])
