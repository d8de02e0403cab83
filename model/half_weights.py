"""bf16 copies of the weights that matrix products read, cast once per step and all at once.

Autocast casts each weight where it is read and each of its gradients where it comes out: two
kernels and an addition for every one of BERT-base's 150 weights and biases, which together took a
seventh of a step. The numbers here are the same ones.
"""

import torch
from torch import nn

Weights = dict[str, torch.Tensor]


class HalfWeights:
    """Stand in for the weights of every linear layer of a network."""

    def __init__(self, network: nn.Module, *, add: bool) -> None:
        """``add`` where the gradients of several passes make up a step's; otherwise the last pass
        of a step is its only one."""
        self._whole = {
            f"{path}.{name}": weight
            for path, module in network.named_modules()
            if isinstance(module, nn.Linear)
            for name, weight in module.named_parameters(recurse=False)
        }
        self.values: Weights = {
            name: weight.detach().bfloat16().requires_grad_(weight.requires_grad)
            for name, weight in self._whole.items()
        }
        """By the names of the network's own, for `torch.func.functional_call`."""
        self._add = add

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what the network's own weights have become."""
        torch._foreach_copy_(list(self.values.values()), list(self._whole.values()))

    @torch.no_grad()
    def hand_over_gradients(self) -> None:
        """Give the gradients to the network's own weights, which must have some, and forget them
        here."""
        found, own = [], []
        for name, half in self.values.items():
            gradient, half.grad = half.grad, None
            whole = self._whole[name].grad
            if gradient is not None and whole is not None:
                found.append(gradient)
                own.append(whole)
        if self._add:
            torch._foreach_add_(own, found)
        else:
            torch._foreach_copy_(own, found)
