"""The training step is the plain one: its losses are those of a loop that anybody would write."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from model.batches import Positions, training_batches
from model.config import TrainConfig
from model.gradients import BatchGradients
from model.normalised_file import Examples
from model.training import TrainData, train
from model.vocabulary import save_tokenizer, train_wordpiece

STEPS = 50
ROWS = 200
RATE = 2e-3
WORDS = ("card", "my", "please", "the", "lost", "refund", "parcel", "password", "again", "app")
LABELS = ("no", "yes")


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data() -> TrainData:
    """Texts of 1 to 14 words; the label says whether `refund` is among them."""
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 15))) for _ in range(ROWS)]
    labels = [LABELS["refund" in text.split()] for text in texts]
    examples = Examples(texts, None, labels, np.arange(1, ROWS + 1, dtype=np.int64))
    return TrainData(train=examples, validation=examples, labels=LABELS, dataset_key="words")


@pytest.fixture
def folder(tmp_path: Path, data: TrainData) -> Path:
    """A BERT of two layers, written as a checkpoint without a head."""
    tokenizer = train_wordpiece(data.train.text_a, 80)
    shape = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model("bert", **shape)).save_pretrained(tmp_path / "model")
    save_tokenizer(tokenizer, tmp_path / "model")
    return tmp_path / "model"


def test_fifty_losses_equal_those_of_a_plain_loop(
    folder: Path, data: TrainData, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(
        model=str(folder),
        learning_rate=RATE,
        batch_size=16,
        max_length=12,
        epochs=4,  # 13 batches each, the last one of 8 rows
        seed=7,
        dropout=0.0,
        precision="fp32",
    )
    losses = our_losses(config, data, monkeypatch)
    expected = plain_losses(config, folder, data)
    assert len(expected) == STEPS
    np.testing.assert_allclose(losses[:STEPS], expected, rtol=0, atol=1e-5)
    assert expected[-1] < 0.8 * expected[0]  # it learned, so the weights moved


@pytest.mark.parametrize("columns", ["joined", "apart"])
def test_losses_of_two_text_columns_equal_those_of_a_plain_loop(
    folder: Path,
    data: TrainData,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
    columns: Literal["joined", "apart"],
) -> None:
    words = [text.split() for text in data.train.text_a]
    both = replace(
        data.train,
        text_a=[" ".join(row[: len(row) // 3]) for row in words],  # of two words or one: empty
        text_b=[" ".join(row[len(row) // 3 :]) for row in words],
    )
    config = TrainConfig(
        model=str(folder),
        learning_rate=RATE,
        batch_size=16,
        max_length=12 if columns == "joined" else 9,
        epochs=4,
        seed=7,
        dropout=0.0,
        precision="fp32",
        columns=columns,
    )
    paired = replace(data, train=both, validation=both)
    losses = our_losses(config, paired, monkeypatch)
    expected = plain_losses(config, folder, paired)
    np.testing.assert_allclose(losses[:STEPS], expected, rtol=0, atol=1e-5)
    assert expected[-1] < 0.8 * expected[0]


def our_losses(
    config: TrainConfig, data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    losses: list[float] = []
    add = BatchGradients.add

    def recording(self: BatchGradients, positions: Positions) -> torch.Tensor:
        loss = add(self, positions)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(BatchGradients, "add", recording)
    train(config, data, device=torch.device("cpu"), on_epoch=lambda report: "continue")
    return losses


def plain_losses(config: TrainConfig, folder: Path, data: TrainData) -> list[float]:
    """Transformers' model and tokenizer, torch's plain AdamW, and the rates written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(config.seed)
    network = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(LABELS), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ).train()
    optimizer = torch.optim.AdamW(plain_groups(network), foreach=False, fused=False)
    losses: list[float] = []
    for rows, rate in zip(plain_batches(config, tokenizer, data), plain_rates(), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate
        targets = torch.tensor([LABELS.index(data.train.labels[row]) for row in rows])
        if config.columns == "apart":
            logits = [plain_mean(config, tokenizer, network, data, row) for row in rows.tolist()]
        else:
            texts = [[column[row] for row in rows] for column in data.train.texts]
            logits = [plain_logits(config, tokenizer, network, *texts)]
        loss = functional.cross_entropy(torch.cat(logits), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def plain_logits(
    config: TrainConfig, tokenizer: Any, network: Any, *texts: list[str]
) -> torch.Tensor:
    inputs = tokenizer(
        *texts, truncation=True, max_length=config.max_length, padding=True, return_tensors="pt"
    )
    logits: torch.Tensor = network(**inputs).logits
    return logits


def plain_mean(
    config: TrainConfig, tokenizer: Any, network: Any, data: TrainData, row: int
) -> torch.Tensor:
    """[1, labels]: over the row's columns that hold a text."""
    texts = [column[row] for column in data.train.texts if column[row]]
    return plain_logits(config, tokenizer, network, texts).mean(dim=0, keepdim=True)


def plain_groups(network: torch.nn.Module) -> list[dict[str, Any]]:
    """No decay for biases and norms, as every BERT script has it."""
    decayed: list[torch.nn.Parameter] = []
    plain: list[torch.nn.Parameter] = []
    for name, parameter in network.named_parameters():
        exempt = name.endswith("bias") or "LayerNorm" in name
        (plain if exempt else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]


def plain_rates() -> list[float]:
    """52 steps: up over the first six (a tenth, rounded up), then linearly down to zero."""
    up = [RATE * step / 6 for step in range(1, 7)]
    down = [RATE * left / 46 for left in range(46, 0, -1)]
    return [*up, *down][:STEPS]


def plain_batches(config: TrainConfig, tokenizer: Any, data: TrainData) -> list[Positions]:
    """The order of the rows is ours: which batches are drawn is no part of a step."""
    apart = config.columns == "apart"
    encoded = [
        tokenizer(*texts, truncation=True, max_length=config.max_length)["input_ids"]
        for texts in ([[column] for column in data.train.texts] if apart else [data.train.texts])
    ]
    # Of columns apart a row is as long as those that are not empty, which have special tokens only.
    lengths = np.array(
        [
            sum(len(ids) for ids in row if not apart or len(ids) > 2)
            for row in zip(*encoded, strict=True)
        ]
    )
    shuffler = np.random.default_rng(config.seed)
    epochs = [training_batches(lengths, config.batch_size, shuffler) for _ in range(config.epochs)]
    return [batch for epoch in epochs for batch in epoch]
