"""AdamW as BERT is fine-tuned with it, and the learning rate's course over the steps."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import PreTrainedModel

from model.averaging import decay_at
from model.config import Schedule, TrainConfig
from model.depth import rate_shares

_NORM_EPSILON = 1e-6
"""What torch adds to a norm before it divides by it."""


def build_optimizer(
    network: PreTrainedModel, config: TrainConfig, device: torch.device
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) with decoupled decay on the matrices only.

    The fused kernel is taken on both devices: on the CPU it updates MiniLM's 22.7 M weights in
    25 ms where the plain one needs 85 ms (2 threads). On CUDA the rates are tensors there, so that
    a recorded step (`model.recorded_steps`) learns at another rate each time.
    """
    groups = parameter_groups(network, config.weight_decay, rate_shares(network, config))
    on_card = device.type == "cuda"
    if on_card:
        for group in groups:
            group["lr"] = torch.tensor(config.learning_rate, device=device)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True, capturable=on_card)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let every group learn at its share of ``rate``."""
    for group in optimizer.param_groups:
        own = rate * group["rate_share"]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def parameter_groups(
    network: nn.Module, weight_decay: float, shares: Mapping[nn.Parameter, float]
) -> list[dict[str, Any]]:
    """Two groups for each share of the learning rate, and each trainable parameter in exactly one:
    decayed, and biases and norm weights.

    Norms are told by their module's type, so that models which call theirs anything
    (`LayerNorm`, `attn_norm`, `sa_layer_norm`, `final_norm`) are treated alike.
    """
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": decay, "rate_share": share}
        for share in sorted(set(shares.values()), reverse=True)
        for decay in (weight_decay, 0.0)
    ]
    place = {group["rate_share"]: index for index, group in enumerate(groups[::2])}
    seen: set[nn.Parameter] = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or parameter not in shares:
                continue
            seen.add(parameter)
            exempt = name.endswith("bias") or _is_norm(module)
            groups[2 * place[shares[parameter]] + exempt]["params"].append(parameter)
    return groups


def _is_norm(module: nn.Module) -> bool:
    known = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
    return isinstance(module, known) or type(module).__name__.endswith("Norm")


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> None:
    """`torch.nn.utils.clip_grad_norm_`, which on a CPU leaves gradients alone that are no longer
    than ``most``: torch multiplies them by 1, another pass over as many numbers as the network
    has weights. On CUDA to look would mean to wait, and steps are recorded there."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    if norm.device.type == "cpu" and most / (norm.item() + _NORM_EPSILON) >= 1:
        return
    clip_grads_with_norm_(trained, most, norm)


def warmup_steps(total_steps: int, warmup_ratio: float) -> int:
    return math.ceil(total_steps * warmup_ratio)


def learning_rate(config: TrainConfig, step: int, *, total_steps: int, warmup: int) -> float:
    """The rate of ``step`` (0-based), in (0, peak].

    It climbs linearly over ``warmup`` steps, stands at its peak at the last of them, and then
    decays so that it would be 0 at ``total_steps``. No step is wasted at a rate of zero, neither
    the first nor the last.
    """
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / (total_steps - warmup)
    return config.learning_rate * _decay(config.lr_schedule, done)


def decay_alone(
    config: TrainConfig, steps: int, *, total_steps: int, warmup: int, rate_share: float = 1.0
) -> float:
    """What ``steps`` steps leave of a decayed weight that never has a gradient, or of its moving
    average where that is what is kept."""
    left = average = 1.0
    for step in range(steps):
        rate = rate_share * learning_rate(config, step, total_steps=total_steps, warmup=warmup)
        left *= 1 - rate * config.weight_decay
        average += (1 - decay_at(config.ema_decay, step + 1)) * (left - average)
    return average if config.ema_decay else left


def _decay(schedule: Schedule, done: float) -> float:
    """``done`` is the share of the steps after the warm-up that are past, in [0, 1)."""
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0
