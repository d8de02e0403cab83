"""Training with the table cut to the words in use ends with the weights of the whole table."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.config import TrainConfig
from model.network import Head, build_network, load_base
from model.normalised_file import Examples
from model.training import TrainData, TrainResult, train
from model.used_words import UsedWords

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")


class WholeTable:
    """In the place of `UsedWords`: every word is trained."""

    def __init__(self, network: Any, *texts: Any) -> None: ...

    def complete(self, weights: dict[str, torch.Tensor], decay: float) -> dict[str, torch.Tensor]:
        return weights


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("bert", {}),
        ("distilbert", {}),
        ("electra", {}),
        ("mpnet", {}),
        ("modernbert", {}),
        ("bert", {"layer_decay": 0.5, "ema_decay": 0.9}),
        ("bert", {"freeze_layers": 1, "ema_decay": 0.9}),
        ("bert", {"max_steps": 4, "sampling": "oversample"}),
        ("bert", {"max_length": 4, "word_dropout": 0.4}),
        ("bert", {"max_length": 4, "truncation": "windows"}),
    ],
)
def test_every_weight_ends_as_if_all_words_had_been_trained(
    model_folder: Callable[[str], Path],
    examples: Callable[[int, int], Examples],
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    settings: dict[str, Any],
) -> None:
    config = TrainConfig(
        model=str(model_folder(model_type)),
        # A low rate, because AdamW blows up the rounding noise of gradients that are truly zero.
        learning_rate=2e-4,
        weight_decay=0.5,
        batch_size=8,
        max_length=16,
        epochs=2,
        dropout=0.0,
        precision="fp32",
    )
    config = replace(config, **settings)
    few = examples(24, 1)
    few = replace(few, text_a=["my new card password", "a refund today", "the parcel still"] * 8)
    data = TrainData(train=few, validation=few, labels=LABELS, dataset_key="few")

    def run() -> TrainResult:
        return train(config, data, device=CPU, on_epoch=lambda report: "continue")

    cut = run()
    monkeypatch.setattr("model.training_run.UsedWords", WholeTable)
    whole = run()
    assert cut.trained is not None
    assert whole.trained is not None
    assert cut.trained.weights.keys() == whole.trained.weights.keys()
    for name, weights in whole.trained.weights.items():
        torch.testing.assert_close(cut.trained.weights[name], weights, atol=2e-6, rtol=0)


def test_words_are_asked_by_their_own_ids_and_padding_learns_nothing(
    model_folder: Callable[[str], Path],
) -> None:
    network = build_network(load_base(model_folder("bert")), Head(LABELS), device=CPU, dropout=0.0)
    before: Any = network.get_input_embeddings()
    ids = torch.tensor([[7, 0, 9, 7]])
    expected = before(ids)
    words = UsedWords(network, np.array([9, 7], dtype=np.int32))
    after: Any = network.get_input_embeddings()
    torch.testing.assert_close(after(ids), expected)
    assert len(after.weight) == 3  # 7, 9 and the padding
    after(ids).sum().backward()
    assert (after.weight.grad != 0).any(dim=1).tolist() == [False, True, True]

    after.weight.grad = None
    after(torch.tensor([[9, 0]])).sum().backward()
    assert (after.weight.grad != 0).any(dim=1).tolist() == [False, False, True]
    after(torch.tensor([[9, 7]])).sum().backward()  # a second part of the same batch
    assert after.weight.grad[:, 0].tolist() == [0, 1, 2]

    name = "bert.embeddings.word_embeddings.weight"
    whole = words.complete(network.state_dict(), decay=0.5)
    with pytest.raises(IndexError):
        after(torch.tensor([8]))
    assert whole.keys() == network.state_dict().keys()
    torch.testing.assert_close(whole[name][9], before.weight[9])
    torch.testing.assert_close(whole[name][8], before.weight[8] / 2)
