"""What of a text's tokens the classifier reads: the first one, or the mean or the highest of all.

Every supported classifier reads the first place of its encoder's output. So another pooling puts
what it makes of all tokens into that place: weights, heads and their names stay what they are. Of
the supported architectures only ModernBERT has a mean of its own; a model that is pooled as its
class in Transformers cannot do is saved under a model type that Transformers does not know
(`model.checkpoint.OWN_TYPE`), since it would load it and silently read the first token.
"""

from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from model.config import Pooling

FIELD = "bertune_pooling"
"""The entry of a configuration whose architecture does not pool so by itself."""


def set_pooling(config: PretrainedConfig, pooling: Pooling | None) -> None:
    """State the pooling in ``config``; None keeps what it states."""
    if pooling is None:
        return
    native = config.model_type == "modernbert"
    if native:
        config.classifier_pooling = "mean" if pooling == "mean" else "cls"
    own = pooling == "max" or (pooling == "mean" and not native)
    if own:
        setattr(config, FIELD, pooling)
    elif own_pooling(config) is not None:
        delattr(config, FIELD)


def own_pooling(config: PretrainedConfig) -> Pooling | None:
    """What the architecture does not do by itself; None where it does."""
    found: Pooling | None = getattr(config, FIELD, None)
    return found


def install_pooling(network: PreTrainedModel) -> None:
    """Let the network pool as its configuration says, by hooks around its encoder."""
    pooling = own_pooling(network.config)
    if pooling is None:
        return
    hooks = _Hooks(pooling)
    network.register_forward_pre_hook(hooks.remember_mask, with_kwargs=True)
    encoder: Any = network.base_model
    # BERT's and ALBERT's poolers, which read the first place, stand inside their base model.
    inner = encoder.encoder if getattr(encoder, "pooler", None) is not None else encoder
    inner.register_forward_hook(hooks.pool)


class _Hooks:
    """Between the call of a network and the end of its encoder."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling
        self._mask: torch.Tensor | None = None

    def remember_mask(self, _: nn.Module, __: Any, named: dict[str, Any]) -> None:
        self._mask = named["attention_mask"]

    def pool(self, _: nn.Module, __: Any, output: Any) -> Any:
        assert self._mask is not None
        hidden = output.last_hidden_state
        pooled = pool_padded(hidden, self._mask, self._pooling)
        output.last_hidden_state = torch.cat([pooled[:, None], hidden[:, 1:]], dim=1)
        return output


def pool_padded(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """[rows, size] from [rows, width, size] over the places where ``mask`` [rows, width] is 1,
    special tokens included."""
    real = mask[:, :, None].bool()
    if pooling == "max":
        return hidden.masked_fill(~real, -torch.inf).amax(dim=1)
    return hidden.masked_fill(~real, 0).sum(dim=1) / real.sum(dim=1)
