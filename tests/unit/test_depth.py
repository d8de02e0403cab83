"""Layer decay and freezing: which weights learn, and at which rate."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from model.config import TrainConfig
from model.depth import freeze, rate_shares
from model.errors import InputError
from model.network import Head, build_network, load_base
from model.normalised_file import Examples
from model.optimization import build_optimizer, set_rate
from model.training import TrainData, TrainResult, train

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")
CONFIG = TrainConfig(
    learning_rate=2e-3, batch_size=8, max_length=16, epochs=1, dropout=0.0, precision="fp32"
)
# The models of `model_folder` have two layers: the head learns at the whole rate, the upper layer
# at a half, the lower one at a quarter, the embeddings at an eighth.
HALVES = {
    "bert": {
        "classifier.weight": 1.0,
        "bert.pooler.dense.bias": 1.0,
        "bert.encoder.layer.1.output.dense.weight": 0.5,
        "bert.encoder.layer.0.attention.output.LayerNorm.bias": 0.25,
        "bert.embeddings.word_embeddings.weight": 0.125,
        "bert.embeddings.LayerNorm.weight": 0.125,
    },
    "distilbert": {
        "pre_classifier.weight": 1.0,
        "distilbert.transformer.layer.1.ffn.lin1.weight": 0.5,
        "distilbert.transformer.layer.0.attention.q_lin.weight": 0.25,
        "distilbert.embeddings.position_embeddings.weight": 0.125,
    },
    "modernbert": {
        "head.dense.weight": 1.0,
        "model.final_norm.weight": 1.0,
        "model.layers.1.mlp.Wi.weight": 0.5,
        "model.layers.0.attn.Wqkv.weight": 0.25,
        "model.embeddings.norm.weight": 0.125,
    },
    "deberta-v2": {
        "pooler.dense.weight": 1.0,
        "deberta.encoder.layer.1.output.dense.weight": 0.5,
        "deberta.encoder.layer.0.output.dense.weight": 0.25,
        "deberta.embeddings.LayerNorm.weight": 0.125,
    },
}


@pytest.fixture
def data(examples: Callable[[int, int], Examples]) -> TrainData:
    return TrainData(
        train=examples(24, 1), validation=examples(12, 2), labels=LABELS, dataset_key="few"
    )


def network_in(folder: Path) -> PreTrainedModel:
    return build_network(load_base(folder), Head(LABELS), device=CPU, dropout=None)


def run(config: TrainConfig, data: TrainData) -> TrainResult:
    return train(config, data, device=CPU, on_epoch=lambda report: "continue")


@pytest.mark.parametrize("model_type", HALVES)
def test_every_layer_learns_at_a_share_of_the_rate_of_the_one_above(
    model_folder: Callable[[str], Path], model_type: str
) -> None:
    network = network_in(model_folder(model_type))
    config = replace(CONFIG, layer_decay=0.5)
    optimizer = build_optimizer(network, config, CPU)
    set_rate(optimizer, 0.008)
    names = {weight: name for name, weight in network.named_parameters()}
    rates = {
        names[weight]: group["lr"] for group in optimizer.param_groups for weight in group["params"]
    }
    assert rates.keys() == dict(network.named_parameters()).keys()
    for name, share in HALVES[model_type].items():
        assert rates[name] == pytest.approx(0.008 * share), name
    assert set(rate_shares(network, CONFIG).values()) == {1.0}


def test_frozen_layers_keep_their_bits_and_all_above_them_learn(
    model_folder: Callable[[str], Path], data: TrainData
) -> None:
    folder = model_folder("bert")
    before = network_in(folder).state_dict()
    # Decay alone would change a frozen weight, the words that no text has included.
    config = replace(CONFIG, model=str(folder), freeze_layers=1, weight_decay=0.5, ema_decay=0.9)
    result = run(config, data)
    assert result.trained is not None
    for name, weight in result.trained.weights.items():
        frozen = ".embeddings." in name or ".layer.0." in name
        # A key's bias shifts all scores of a row alike, so it has no gradient but rounding.
        if name.startswith("bert.") and not name.endswith("key.bias"):
            assert torch.equal(weight, before[name]) is frozen, name


def test_freezing_gives_the_losses_of_a_plain_loop_over_the_other_weights(
    model_folder: Callable[[str], Path], data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, model=str(model_folder("bert")), freeze_layers=1, layer_decay=0.5)
    packed = run(config, data)
    monkeypatch.setattr("model.classifier.can_pack", lambda network, device: False)
    padded = run(config, data)
    assert packed.trained is not None
    assert padded.trained is not None
    for name, weight in padded.trained.weights.items():
        torch.testing.assert_close(packed.trained.weights[name], weight, atol=5e-5, rtol=0)


@pytest.mark.parametrize("setting", [{"freeze_layers": 1}, {"layer_decay": 0.9}])
def test_a_model_whose_layers_share_their_weights_is_refused(
    model_folder: Callable[[str], Path], data: TrainData, setting: dict[str, Any]
) -> None:
    config = replace(CONFIG, model=str(model_folder("albert")), **setting)
    with pytest.raises(InputError, match="share their weights") as raised:
        run(config, data)
    assert raised.value.where == tuple(setting)
    assert run(replace(CONFIG, model=config.model), data).state == "completed"


def test_no_more_layers_are_frozen_than_there_are(
    model_folder: Callable[[str], Path], data: TrainData
) -> None:
    config = replace(CONFIG, model=str(model_folder("bert")), freeze_layers=3)
    with pytest.raises(InputError, match="more than the model's 2 layers"):
        run(config, data)
    network = network_in(model_folder("bert"))
    freeze(network, 2)
    learning = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert learning == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }
