"""Cheap dropout drops its share, independently, by the seed, and in training only."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from model.dropout import Dropout, dropout
from model.network import Head, build_network, load_base

CPU = torch.device("cpu")


def test_a_network_drops_by_the_cheap_numbers(model_folder: Callable[[str], Path]) -> None:
    network = build_network(
        load_base(model_folder("bert")), Head(("no", "yes")), device=CPU, dropout=0.25
    )
    found = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert found
    assert {(type(module), module.p) for module in found} == {(Dropout, 0.25)}


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_its_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(501, 999, dtype=dtype)  # no multiple of the elements per draw
    dropped = dropout(values, p, training=True)
    share = (dropped == 0).float().mean().item()
    assert share == pytest.approx(p, abs=0.003)  # four standard deviations of 500,000 draws
    kept = dropped[dropped != 0].float()
    assert kept.unique().tolist() == [torch.tensor(1 / (1 - p)).to(dtype).float().item()]


def test_dropout_treats_rows_alike_and_neighbours_independently() -> None:
    torch.manual_seed(1)
    zeros = (dropout(torch.ones(4, 200_000), 0.3, training=True) == 0).float()
    torch.testing.assert_close(zeros.mean(dim=1), torch.full((4,), 0.3), atol=0.005, rtol=0)
    both = (zeros[:, 1:] * zeros[:, :-1]).mean().item()
    assert both == pytest.approx(0.09, abs=0.005)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_follows_the_seed_and_leaves_evaluation_alone(dtype: torch.dtype) -> None:
    values = torch.randn(64, 64, dtype=dtype)
    torch.manual_seed(2)
    first = dropout(values, 0.2, training=True)
    assert not torch.equal(dropout(values, 0.2, training=True), first)
    torch.manual_seed(2)
    torch.testing.assert_close(dropout(values, 0.2, training=True), first, atol=0, rtol=0)
    assert dropout(values, 0.2, training=False) is values
    scaled = (values.float() / 0.8).to(dtype)
    torch.testing.assert_close(first[first != 0], scaled[first != 0])
    followed = torch.ones_like(values, requires_grad=True)
    torch.manual_seed(2)
    dropout(followed, 0.2, training=True).sum().backward()
    assert followed.grad is not None
    torch.testing.assert_close(followed.grad, (first != 0).to(dtype) * torch.tensor(1.25))
