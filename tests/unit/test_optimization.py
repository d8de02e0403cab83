"""The learning rate's course, which weights decay, and how gradients are clipped."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import ModernBertConfig, ModernBertForSequenceClassification

from model.config import TrainConfig
from model.optimization import (
    clip_gradients,
    decay_alone,
    learning_rate,
    parameter_groups,
    warmup_steps,
)


def course(schedule: str, total: int, warmup: int, peak: float = 1.0) -> list[float]:
    config = TrainConfig(learning_rate=peak, lr_schedule=schedule)  # type: ignore[arg-type]
    return [learning_rate(config, s, total_steps=total, warmup=warmup) for s in range(total)]


def test_linear_climbs_to_the_peak_and_falls_evenly() -> None:
    assert course("linear", total=8, warmup=4) == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]
    )


def test_cosine_is_at_half_the_peak_half_way_down() -> None:
    rates = course("cosine", total=6, warmup=2, peak=0.2)
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.2])
    assert rates[4] == pytest.approx(0.1)
    assert rates[3] == pytest.approx(0.2 * 0.5 * (1 + 2**-0.5))


def test_constant_stays_at_the_peak_after_the_warm_up() -> None:
    assert course("constant", total=4, warmup=2) == pytest.approx([0.5, 1, 1, 1])


def test_warm_up_alone_and_no_warm_up_are_both_allowed() -> None:
    assert course("linear", total=2, warmup=2) == pytest.approx([0.5, 1.0])
    assert course("linear", total=2, warmup=0) == pytest.approx([1.0, 0.5])


def test_the_warm_up_is_rounded_up_to_a_whole_step() -> None:
    assert (warmup_steps(25, 0.1), warmup_steps(25, 0.0), warmup_steps(25, 1.0)) == (3, 0, 25)


def names_without_decay(network: nn.Module) -> set[str]:
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {names[parameter] for parameter in groups(network, 0.1)[1]["params"]}


def groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trainable = (parameter for parameter in network.parameters() if parameter.requires_grad)
    return parameter_groups(network, weight_decay, dict.fromkeys(trainable, 1.0))


def test_norms_are_exempt_from_decay_whatever_their_name() -> None:
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = ModernBertConfig(
        vocab_size=20,
        num_hidden_layers=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        **shape,  # type: ignore[arg-type]
    )
    exempt = names_without_decay(ModernBertForSequenceClassification(config))
    assert {"model.final_norm.weight", "model.layers.1.attn_norm.weight"} <= exempt
    assert "head.norm.weight" in exempt
    assert "classifier.bias" in exempt
    assert not any(name.endswith(("Wqkv.weight", "tok_embeddings.weight")) for name in exempt)


def test_a_norm_class_of_a_models_own_is_known_by_its_name() -> None:
    class TinyRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    assert names_without_decay(nn.Sequential(TinyRMSNorm(), nn.Linear(2, 2))) == {
        "0.scale",
        "1.bias",
    }


def test_every_trainable_weight_stands_in_one_group_once_even_when_tied() -> None:
    first, tied, frozen = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    tied.weight = first.weight
    frozen.requires_grad_(False)
    decayed, plain = groups(nn.Sequential(first, tied, frozen), 0.1)
    assert [len(decayed["params"]), len(plain["params"])] == [1, 2]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_decay_shrinks_a_matrix_by_rate_times_decay_and_leaves_its_bias() -> None:
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer = torch.optim.AdamW(groups(layer, 0.5), lr=0.1)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(1 - 0.1 * 0.5)
    assert layer.bias.item() == 1.0


def test_a_weight_without_gradient_only_decays() -> None:
    config = TrainConfig(learning_rate=0.1, weight_decay=0.5)
    # Rates 0.05 and 0.1 of the warm-up, then 0.1 as the decay begins.
    left = decay_alone(config, 3, total_steps=4, warmup=2)
    assert left == pytest.approx(0.975 * 0.95 * 0.95)
    assert decay_alone(config, 0, total_steps=4, warmup=2) == 1.0


def test_what_decay_leaves_of_a_weight_follows_its_share_and_its_average() -> None:
    config = TrainConfig(learning_rate=0.1, weight_decay=0.5, lr_schedule="constant", ema_decay=0.9)
    # Without warm-up every step takes a tenth of a half, and here half of that: 0.975, 0.950625.
    plain = replace(config, ema_decay=0.0)
    half = decay_alone(plain, 2, total_steps=4, warmup=0, rate_share=0.5)
    assert half == pytest.approx(0.975**2)
    assert decay_alone(plain, 2, total_steps=4, warmup=0, rate_share=0.0) == 1.0
    # The average keeps 2/11 at its first update and 3/12 at its second.
    first = 2 / 11 + 9 / 11 * 0.975
    second = first / 4 + 3 / 4 * 0.975**2
    averaged = decay_alone(config, 2, total_steps=4, warmup=0, rate_share=0.5)
    assert averaged == pytest.approx(second)


@pytest.mark.parametrize("scale", [1e-3, 0.2, 0.2499999, 0.25, 0.3, 1e4, float("nan")])
def test_gradients_are_clipped_as_torch_clips_them_to_the_bit(scale: float) -> None:
    def network() -> nn.Module:
        made = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
        torch.manual_seed(0)
        for parameter in made[0].parameters():  # the other layer was not part of the loss
            parameter.grad = torch.full_like(parameter, scale) + scale * torch.rand_like(parameter)
        return made

    ours, theirs = network(), network()
    clip_gradients(ours.parameters(), 1.0)
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None
        else:
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0, equal_nan=True)
