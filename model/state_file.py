"""Tensors and strings in one file that appears whole or not at all, and tells when it is damaged.

The format is safetensors, which runs no code when it is read. The writer is our own because the
library's hides which system error it met: a full disk must be told from other failures.
"""

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
NO_DIGEST = "0" * 64
"""Stands in the header until everything else is written."""
ABANDONED_S = 600
"""A partial file that nobody has written to for this long belongs to a killed process."""


class BrokenFileError(ValueError):
    """A file that `write_tensors` did not write, or that was damaged since."""


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Replace ``path`` atomically; tensors on a device are copied to the host one at a time.

    What is written goes to the disk before the name does, so a power cut leaves the old file or
    the new one. Raises `OSError`, and then nothing is left beside the old file.
    """
    names = _order(tensors)
    header = _header({name: tensors[name] for name in names}, metadata)
    _remove_abandoned(path)
    partial = path.with_name(f"{_partial_prefix(path)}{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            digest = _new_digest(metadata)
            file.write(header)
            for name in names:
                file.write(_digested(digest, name, tensors[name]).data)
            file.seek(header.index(NO_DIGEST.encode()))
            file.write(digest.hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors, on the CPU and independent of the file, and the strings.

    Raises `BrokenFileError`, and `OSError` where the file cannot be read at all.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata: dict[str, str] = file.metadata() or {}
            stated = metadata.pop("sha256", None)
            if stated is None:
                raise BrokenFileError("it carries no checksum")
            # The copies let go of the mapped file, which may be replaced while they live.
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except SafetensorError as error:
        raise BrokenFileError(f"it is no whole safetensors file: {error}") from error
    digest = _new_digest(metadata)
    for name in _order(tensors):
        _digested(digest, name, tensors[name])
    if digest.hexdigest() != stated:
        raise BrokenFileError("its checksum does not fit its content")
    return tensors, metadata


def _order(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Wide types first: so every tensor in the file is aligned to its own type."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _header(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """The length as 8 bytes, and JSON padded with blanks to a multiple of 8."""
    entries: dict[str, Any] = {"__metadata__": {"sha256": NO_DIGEST, **metadata}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _new_digest(metadata: Mapping[str, str]) -> "hashlib._Hash":
    return hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())


def _digested(digest: "hashlib._Hash", name: str, tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The tensor's bytes, after they were added to ``digest`` with its name and type."""
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest.update(flat.data)
    return flat


def _partial_prefix(path: Path) -> str:
    return f".{path.name}.partial-"


def _remove_abandoned(path: Path) -> None:
    """Clear away what killed processes left of this file, so that kills do not fill the disk."""
    oldest = time.time() - ABANDONED_S
    for file in path.parent.iterdir():
        # Another process may be clearing too, and another user's file may stay.
        with contextlib.suppress(OSError):
            if file.name.startswith(_partial_prefix(path)) and file.stat().st_mtime < oldest:
                file.unlink()
