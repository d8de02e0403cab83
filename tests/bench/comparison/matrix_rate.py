"""The machine's rate of matrix products, measured in a process of its own.

    python -m comparison.matrix_rate cpu|cuda

Prints flops per second (two per multiply-add): the best of several runs of a large square product,
which is what a device can reach at all, in the precision that `auto` trains in there: where the
hardware does not multiply bf16, its products are emulated and say nothing.
"""

import sys
import time

import torch

from model.devices import resolve_precision

SIZE = {"cpu": 2048, "cuda": 8192}
RUNS = {"cpu": 12, "cuda": 40}


def matrix_rate(device: str) -> float:
    """Flops per second of the fastest run after one to warm up."""
    size = SIZE[device]
    precise = resolve_precision("auto", torch.device(device))
    dtype = torch.bfloat16 if precise == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest_s = min(_seconds(left, right) for _ in range(RUNS[device]))
    return 2 * size**3 / fastest_s


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    _wait(left)
    started = time.perf_counter()
    torch.mm(left, right)
    _wait(left)
    return time.perf_counter() - started


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    print(matrix_rate(sys.argv[1]))
