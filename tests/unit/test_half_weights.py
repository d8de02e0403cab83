"""bf16 weights that are cast once give the numbers of autocast, which casts them where they are
read."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from model.half_weights import HalfWeights


class Small(nn.Module):
    """Two linear layers around a norm, one of them frozen, and one that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 8)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3, bias=False)
        self.norm = nn.LayerNorm(16)
        self.unread = nn.Linear(2, 2)
        self.frozen = nn.Linear(16, 16).requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.frozen(self.first(self.words(ids))).relu())
        found: torch.Tensor = self.second(hidden)
        return found


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: x.grad for name, x in network.named_parameters() if x.grad is not None}


@pytest.mark.parametrize("passes", [1, 2])
def test_gradients_are_those_of_autocast(passes: int) -> None:
    torch.manual_seed(0)
    plain = Small()
    batches = [torch.randint(9, (4, 5)) for _ in range(passes)]
    halved = copy.deepcopy(plain)
    halves = HalfWeights(halved, add=passes > 1)
    for network in (plain, halved):  # what a step that is not recorded leaves behind
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(batches[0]).float().square().sum()
        loss.backward()
        network.zero_grad(set_to_none=False)
    for ids in batches:
        with torch.autocast("cpu", torch.bfloat16):
            expected = plain(ids).float()
        expected.square().sum().backward()
        with torch.autocast("cpu", torch.bfloat16):
            found = functional_call(halved, halves.values, (ids,)).float()
        found.square().sum().backward()
        halves.hand_over_gradients()
        assert torch.equal(found, expected)
    wanted, given = gradients(plain), gradients(halved)
    assert given.keys() == wanted.keys()
    assert not any(name.startswith(("unread", "frozen")) for name in given)
    for name, gradient in wanted.items():
        assert torch.equal(given[name], gradient), name
        assert gradient.any(), name
    assert all(half.grad is None for half in halves.values.values())


def test_new_weights_are_taken_over() -> None:
    network = Small()
    halves = HalfWeights(network, add=False)
    assert set(halves.values) == {
        *("first.weight", "first.bias", "second.weight"),
        *("frozen.weight", "frozen.bias", "unread.weight", "unread.bias"),
    }
    with torch.no_grad():
        network.first.weight.add_(1)
    before = halves.values["first.weight"].clone()
    halves.refresh()
    assert torch.equal(halves.values["first.weight"], network.first.weight.bfloat16())
    assert not torch.equal(halves.values["first.weight"], before)
    assert halves.values["first.weight"].requires_grad
    assert not halves.values["frozen.weight"].requires_grad
