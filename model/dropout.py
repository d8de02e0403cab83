"""Dropout whose random numbers are cheap on a CPU.

torch draws one number of its serial CPU generator per element, which took 11 % of a MiniLM step.
Here one draw of 64 bits decides four elements, from a generator of NumPy's that is four times as
fast. Each mask's begins at a number of torch's, so that seeding and saved generator states mean
what they always mean.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_DRAWS = 4
"""Elements per draw: 16 bits each, which is as near as 1/65536 to the stated probability."""


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `dropout`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return dropout(input, self.p, training=self.training)


def dropout(values: torch.Tensor, p: float, *, training: bool) -> torch.Tensor:
    """Zero each element with probability ``p`` and scale the others so that the mean stays."""
    if values.device.type != "cpu" or not training or p == 0:
        return functional.dropout(values, p, training)
    kept = _kept(values.shape, p)
    if values.element_size() == kept.element_size():
        dropped: torch.Tensor = _HalfDropout.apply(values, kept, 1 / (1 - p))  # type: ignore[no-untyped-call]
        return dropped
    return values * kept.to(values.dtype).mul_(1 / (1 - p))


class _HalfDropout(torch.autograd.Function):
    """Of values of 16 bits, whose bits are multiplied as the integers that they may as well be:
    to make numbers of the mask first took twice as long as to draw it."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, kept: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return _scaled(values, kept, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return _scaled(gradients[0], kept, ctx.scale), None, None


def _scaled(values: torch.Tensor, kept: torch.Tensor, scale: float) -> torch.Tensor:
    return (values.view(torch.int16) * kept).view(values.dtype).mul_(scale)


def use_cheap_dropout(network: nn.Module) -> None:
    """Replace every dropout of ``network``. They have no weights, so its state stays as it is."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))


def _kept(shape: torch.Size, p: float) -> torch.Tensor:
    """int16, each 1 with probability ``1 - p``, else 0."""
    count = shape.numel()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = np.random.PCG64DXSM(seed).random_raw(-(-count // _DRAWS)).view(np.int16)
    dropped = round(p * 2**16)
    return torch.from_numpy(draws[:count]).view(shape).ge_(dropped - 2**15)
