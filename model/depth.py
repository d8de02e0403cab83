"""How deep in the network each weight stands: what layer decay and freezing go by.

Howard & Ruder 2018 (ULMFiT) and Sun et al. 2019 ("How to Fine-Tune BERT for Text
Classification?") train the lower layers, which know the language, more gently than the upper ones.
"""

from torch import nn
from transformers import PreTrainedModel

from model.config import TrainConfig

_ABOVE_THE_LAYERS = ("pooler.", "final_norm.")
"""Parts of an encoder that read what its last layer gives."""


def rate_shares(network: PreTrainedModel, config: TrainConfig) -> dict[nn.Parameter, float]:
    """What part of the learning rate each trainable weight has, by `layer_decay`.

    All of it above the layers (pooler and head), ``layer_decay`` of it in the top layer, its
    square in the next, and so on; the embeddings stand one below the lowest layer.
    """
    trainable = [weight for weight in network.parameters() if weight.requires_grad]
    if config.layer_decay == 1:
        return dict.fromkeys(trainable, 1.0)
    depth, top = _depths(network), network.config.num_hidden_layers + 1
    return {weight: config.layer_decay ** (top - depth[weight]) for weight in trainable}


def freeze(network: PreTrainedModel, layers: int) -> None:
    """Keep the embeddings and so many of the lowest layers as they are; 0 freezes nothing.

    Their dropout stays: what the layers above them learn from is as varied as ever.
    """
    if layers == 0:
        return
    for weight, depth in _depths(network).items():
        weight.requires_grad_(depth > layers)


def _depths(network: PreTrainedModel) -> dict[nn.Parameter, int]:
    """0 for the embeddings, 1 … n for the layers from the bottom, n + 1 for all above them."""
    encoder, count = network.base_model, network.config.num_hidden_layers
    stacks = (module for module in encoder.modules() if isinstance(module, nn.ModuleList))
    layers = next(stack for stack in stacks if len(stack) == count)
    found = dict.fromkeys(network.parameters(), count + 1)
    for name, weight in encoder.named_parameters():
        if not name.startswith(_ABOVE_THE_LAYERS):
            found[weight] = 0
    for index, layer in enumerate(layers, start=1):
        found |= dict.fromkeys(layer.parameters(), index)
    return found
