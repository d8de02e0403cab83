"""Running out of memory is met by doing the same work in smaller parts.

So a batch size means the same on every card: it is what one optimizer step learns from, not what
fits at once.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from model.batches import Positions
from model.errors import TrainingError

T = TypeVar("T")

ADVICE = "Lower max_length, take a smaller model, or let fewer programs share the device."
"""A smaller batch is not among it: batches are split as memory needs."""


class PartSize:
    """How many padded tokens go through the network at once: no limit until memory runs out.

    What it has learned holds for the rest of a run, so that not every batch runs out first.
    ``max_rows`` is a limit of its own.
    """

    def __init__(self, max_rows: int | None = None) -> None:
        self.max_tokens: int | None = None
        self._max_rows = max_rows

    def cut(self, positions: Positions, lengths: npt.NDArray[np.int64]) -> list[Positions]:
        """Cut a batch into even parts, each within the limit or a single row."""
        rows = self._max_rows or len(positions)
        if self.max_tokens is not None:
            rows = min(rows, max(1, self.max_tokens // int(lengths[positions].max())))
        return np.array_split(positions, -(-len(positions) // rows))

    def shrink(self, positions: Positions, lengths: npt.NDArray[np.int64]) -> None:
        """Halve the limit after ``positions`` did not fit.

        Raises `TrainingError` `out_of_memory` when that was a single row.
        """
        width = int(lengths[positions].max())
        if len(positions) == 1:
            detail = f"One row of {width} tokens does not fit in memory. {ADVICE}"
            raise TrainingError("out_of_memory", detail)
        self.max_tokens = width * (len(positions) // 2)


def run_in_parts(
    work: Callable[[Positions], T],
    positions: Positions,
    lengths: npt.NDArray[np.int64],
    size: PartSize,
    *,
    undo: Callable[[], None] = lambda: None,
) -> list[T]:
    """Do ``work`` on a batch, in as many parts as memory needs; its results, part by part.

    When a part runs out of memory, ``undo`` takes back what the batch's earlier parts have done
    and the whole batch starts again in smaller ones.
    """
    while True:
        parts = size.cut(positions, lengths)
        results: list[T] = []
        try:
            results.extend(work(part) for part in parts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return results
        # Outside the handler: the error's traceback would keep the activations alive.
        failed = parts[len(results)]
        del results
        undo()
        free_memory()
        size.shrink(failed, lengths)


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA's allocator has a type for it; the CPU's, the driver and cuBLAS only have words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def free_memory() -> None:
    """Give cached blocks back, so that smaller ones can be laid out anew."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def memory_errors_named() -> Iterator[None]:
    """Turn what is left, such as weights that do not fit, into `TrainingError` `out_of_memory`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        first_line = str(error).partition("\n")[0]
        detail = f"{first_line or 'Memory ran out.'} {ADVICE}"
        raise TrainingError("out_of_memory", detail) from error
