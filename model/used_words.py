"""Trains only the word embeddings that a data set uses; the others follow in closed form.

BERT's table of 30,522 words is half of MiniLM's weights, and a data set of thousands of texts uses
a few thousand of them. A word that never occurs has no gradient, so AdamW does nothing to it but
its decay, which is known beforehand. Leaving these rows out of the optimizer, of the gradient and
of its norm changes no loss.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from model.tokens import Ids


class UsedWords:
    """Holds the whole table of a network whose embeddings were cut to the words in use."""

    def __init__(self, network: PreTrainedModel, *texts: Ids) -> None:
        """Replace the network's input embeddings; ``texts`` are all ids that it will ever read."""
        whole = cast(nn.Embedding, network.get_input_embeddings())
        # Batches are padded with the configuration's id; MPNet's table has one of its own.
        padding = [whole.padding_idx, getattr(network.config, "pad_token_id", None)]
        pads = np.array([index or 0 for index in padding], dtype=np.int32)
        used = np.unique(np.concatenate([*texts, pads]))
        self._used = torch.from_numpy(used.astype(np.int64))
        self._whole = whole.weight.detach().cpu()
        network.set_input_embeddings(_UsedEmbedding(whole, self._used))
        (self._name,) = (
            name for name, module in network.named_modules() if isinstance(module, _UsedEmbedding)
        )

    def complete(self, weights: dict[str, torch.Tensor], decay: float) -> dict[str, torch.Tensor]:
        """``weights`` of the cut network with the whole table in it; ``decay`` is what the steps
        made of a weight without gradient."""
        name = f"{self._name}.weight"
        table = self._whole * decay
        table[self._used] = weights[name]
        return weights | {name: table}


class _UsedEmbedding(nn.Module):
    """An embedding that is asked by the ids of the whole table."""

    def __init__(self, whole: nn.Embedding, used: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(whole.weight.detach()[used.to(whole.weight.device)])
        # An id that was not announced lies outside the table, so that it is heard of.
        place = torch.full((whole.num_embeddings,), len(used))
        place[used] = torch.arange(len(used))
        self.place: torch.Tensor
        self.register_buffer("place", place.to(whole.weight.device), persistent=False)
        self._padding = None if whole.padding_idx is None else int(place[whole.padding_idx])
        self._gradient = _KeptGradient(self.weight, self._padding)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = self.place[ids]
        if places.device.type == "cpu":
            looked_up: torch.Tensor = _LookUp.apply(self.weight, places, self._gradient)  # type: ignore[no-untyped-call]
            return looked_up
        return functional.embedding(places, self.weight, padding_idx=self._padding)


class _KeptGradient:
    """A table's gradient in memory that is used again at each step, where only the rows of the last
    step's words have to be zeroed: a new MiniLM table, all zeros, takes five times as long.
    """

    def __init__(self, weight: nn.Parameter, padding: int | None) -> None:
        self._weight = weight
        self._padding = padding
        self._values: torch.Tensor | None = None
        self._touched: list[torch.Tensor] = []

    def add(self, places: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add [N, hidden size] to the rows at ``places``, [N], of the weight's ``grad``."""
        if self._values is None or self._weight.grad is not self._values:
            self._weight.grad = self._values = self._zeroed()
        self._values.index_add_(0, places, gradient)
        if self._padding is not None:
            self._values[self._padding] = 0
        self._touched.append(places)

    def _zeroed(self) -> torch.Tensor:
        if self._values is None:
            return torch.zeros_like(self._weight)
        for places in self._touched:
            self._values.index_fill_(0, places, 0)
        self._touched.clear()
        return self._values


class _LookUp(torch.autograd.Function):
    """Rows of a table, whose gradient goes to a `_KeptGradient`."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, places: torch.Tensor, gradient: _KeptGradient
    ) -> torch.Tensor:
        ctx.save_for_backward(places)
        ctx.gradient = gradient
        return functional.embedding(places, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, None]:
        (places,) = ctx.saved_tensors
        (given,) = gradients
        ctx.gradient.add(places.flatten(), given.reshape(-1, given.shape[-1]))
        return None, None, None
