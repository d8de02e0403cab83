"""Which rows go together, and the padded arrays that a network reads.

Padding is the waste of a BERT's training time, so rows of like length are put together where
that costs no randomness, and each batch is padded only to its own longest row.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.tokens import Sequences

Positions = npt.NDArray[np.int64]
"""Positions of rows within a split."""

GROUPED_BATCHES = 16
"""Batches whose rows are drawn together and sorted by length among themselves."""


def training_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, generator: np.random.Generator
) -> list[Positions]:
    """One epoch: every row once, in batches of ``batch_size``; the last may be smaller.

    All rows are shuffled and cut into groups of `GROUPED_BATCHES` batches; within a group the rows
    are sorted by length and cut into batches, and then all full batches are shuffled. So a batch
    is a random draw among the rows of like length of its group, and its place is random. The
    incomplete batch goes last, so that every step but that one has the stated size.
    """
    order = generator.permutation(len(lengths)).astype(np.int64)
    full: list[Positions] = []
    incomplete: list[Positions] = []
    for start in range(0, len(order), batch_size * GROUPED_BATCHES):
        group = order[start : start + batch_size * GROUPED_BATCHES]
        remainder = len(group) % batch_size
        if remainder:
            group, rest = group[:-remainder], group[-remainder:]
            incomplete.append(rest)
        group = group[np.argsort(lengths[group], kind="stable")]
        full.extend(group.reshape(-1, batch_size))
    return [full[index] for index in generator.permutation(len(full))] + incomplete


def evaluation_batches(
    lengths: npt.NDArray[np.int64], tokens: int, rows: int | None = None
) -> Iterator[Positions]:
    """Every row once, longest first, at most ``tokens`` padded tokens (or one row) per batch.

    The longest come first so that a batch that does not fit in memory is met at once.
    """
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    start = 0
    while start < len(order):
        fitting = max(1, tokens // int(lengths[order[start]]))
        size = fitting if rows is None else min(fitting, rows)
        yield order[start : start + size]
        start += size


def collate(
    sequences: Sequences,
    positions: Positions,
    *,
    pad_id: int,
    max_width: int,
    device: torch.device,
) -> torch.Tensor:
    """Gather rows of the flat arrays into one padded batch in host memory, pinned for CUDA:
    [3, rows, width] int64, which are ids, token types and the attention mask.

    On CUDA the width is rounded up (`padded_width`), but not beyond ``max_width``, the network's
    positions.
    """
    lengths = sequences.lengths[positions]
    width = int(lengths.max())
    if device.type == "cuda":
        width = max(width, min(padded_width(width), max_width))
    columns = np.arange(width, dtype=np.int64)
    real = columns[None, :] < lengths[:, None]
    # Padding cells may point past the end of the flat array; clip, then overwrite them.
    source = np.minimum(sequences.offsets[positions][:, None] + columns, len(sequences.ids) - 1)
    batch = np.empty((3, *real.shape), dtype=np.int64)
    batch[0] = np.where(real, sequences.ids[source], pad_id)
    batch[1] = np.where(real, sequences.type_ids[source], 0)
    batch[2] = real
    padded = torch.from_numpy(batch)
    return padded.pin_memory() if device.type == "cuda" else padded


def padded_width(longest: int) -> int:
    """Multiples of 8, at which tensor cores run at full speed; beyond 64 fewer of them, an eighth
    to a quarter of the width apart, so that shapes come again."""
    step = 8
    while longest > 8 * step:
        step *= 2
    return longest + -longest % step


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """On CUDA the copy overlaps with work already queued."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
