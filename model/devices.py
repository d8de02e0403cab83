"""What a device can do: which one to take, its name, and the precision it runs fast."""

import contextlib
import platform
from collections.abc import Iterator
from typing import Literal

import torch

from model.config import Precision
from model.errors import InputError, TrainingError

UsedPrecision = Literal["fp32", "bf16"]


def choose_device(name: Literal["auto", "cpu", "cuda"] = "auto") -> torch.device:
    """`auto` takes the current CUDA device where there is one. Raises `InputError` `no_cuda`."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("no_cuda", "No CUDA device is visible; use --device cpu.", ("device",))
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's architecture for the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def resolve_precision(precision: Precision, device: torch.device) -> UsedPrecision:
    """The precision of matrix products; weights and optimizer state are always fp32.

    `auto` takes bf16 autocast where the hardware multiplies bf16 natively: CUDA devices of compute
    capability 8.0 and up, x86 processors with AMX or AVX512-BF16. There it was measured to be
    faster even for a 6-layer model (AMD EPYC with AVX512-BF16, 2 threads, MiniLM, batch 32: an
    optimizer step takes 0.65 s in bf16 against 1.11 s in fp32 at 64 tokens). Elsewhere bf16 is
    emulated and slower, and `auto` takes fp32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    if device.type == "cpu" and _cpu_multiplies_bf16():
        return "bf16"
    return "fp32"


def autocast(device: torch.device, precision: UsedPrecision) -> torch.autocast:
    """A fresh context: its cache of cast weights must not outlive an optimizer step."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _cpu_multiplies_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextlib.contextmanager
def fast_matrix_products(device: torch.device) -> Iterator[None]:
    """On CUDA, let fp32 matrix products run on tensor cores (TF32), as bf16 ones do."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def device_errors_named() -> Iterator[None]:
    """Turn what a card reports when it fails into `TrainingError` ``gpu_lost``.

    After such an error no further work of this process reaches the card.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_device_failure(error):
            raise
        first_line = str(error).partition("\n")[0]
        raise TrainingError(
            "gpu_lost",
            f"The GPU failed or went away ({first_line}): look at nvidia-smi and the machine's "
            "kernel log; another trial on this machine needs a new process.",
        ) from error


def _is_device_failure(error: RuntimeError) -> bool:
    """A device-side assertion is left out: it is the program's fault, not the card's."""
    if isinstance(error, TrainingError | torch.OutOfMemoryError):
        return False
    text = str(error)
    if "device-side assert" in text:
        return False
    named = ("CUDA error", "CUDA driver error", "cuDNN error", "No CUDA GPUs are available")
    return isinstance(error, torch.AcceleratorError) or any(name in text for name in named)
