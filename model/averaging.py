"""An exponential moving average of the weights, which is what gets validated and kept.

The average of the last steps is often better than any single one of them (Polyak & Juditsky
1992). Early steps would weigh too much in a short run, so its decay begins low and climbs to what
was asked for, as in TensorFlow's `ExponentialMovingAverage` with `num_updates`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

Weights = dict[str, torch.Tensor]


def decay_at(decay: float, updates: int) -> float:
    """How much of the average stays at update number ``updates`` (1-based)."""
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """Follows the trainable weights of a network; with a decay of 0 it does nothing.

    What is not trained is equal to its own average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        followed = network.named_parameters() if decay else ()
        self._weights = {name: weight for name, weight in followed if weight.requires_grad}
        self.values: Weights = {
            name: weight.detach().clone() for name, weight in self._weights.items()
        }

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights after optimizer step number ``updates`` (1-based)."""
        if self._weights:
            share = 1 - decay_at(self._decay, updates)
            torch._foreach_lerp_(list(self.values.values()), list(self._weights.values()), share)

    def restore(self, values: Weights) -> None:
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network computes with the averages; nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self._weights.items():
            weight.data, self.values[name] = self.values[name], weight.data
