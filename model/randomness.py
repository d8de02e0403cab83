"""One seed for everything random, so that a trial does not depend on what ran before it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True, eq=False)
class RandomState:
    """Where the generators stand that `reproducible` seeds."""

    host: dict[str, Any]
    """Python's and NumPy's, as plain JSON values."""
    cpu: torch.Tensor
    """[bytes] uint8, as is ``cuda``."""
    cuda: torch.Tensor | None
    """Of the training device; None on the CPU."""


def random_state(device: torch.device) -> RandomState:
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    key = numpy_state["state"]["key"].tolist()
    version, words, gauss = random.getstate()
    return RandomState(
        host={
            "python": [version, list(words), gauss],
            "numpy": numpy_state | {"state": numpy_state["state"] | {"key": key}},
        },
        cpu=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    )


def restore_random_state(state: RandomState, device: torch.device) -> None:
    version, words, gauss = state.host["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(state.host["numpy"])
    torch.set_rng_state(state.cpu)
    if state.cuda is not None:
        torch.cuda.set_rng_state(state.cuda, device)


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed Python, NumPy and torch and reset the default dtype; put the caller's state back after.

    Within it, equal code gives equal numbers on the CPU at an equal thread count. CUDA kernels
    that add atomically may differ in the last bits from run to run.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    dtype = torch.get_default_dtype()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            np.random.set_state(numpy_state)
            random.setstate(python_state)
