"""How long a run is: epochs, steps, patience, and how many rows make a step."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from model.batches import Positions
from model.classifier import Classifier
from model.config import TrainConfig, default_settings
from model.early_stopping import out_of_patience
from model.evaluation import evaluate_split
from model.metrics import Evaluation
from model.normalised_file import Examples
from model.tokens import Sequences
from model.training import EpochReport, TrainData, TrainResult, train

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")
# 48 rows in batches of 8 are 6 steps an epoch.
CONFIG = TrainConfig(
    learning_rate=1e-3, batch_size=8, max_length=16, epochs=3, dropout=0.0, precision="fp32", seed=3
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(examples: Callable[[int, int], Examples]) -> TrainData:
    return TrainData(
        train=examples(48, 1), validation=examples(12, 2), labels=LABELS, dataset_key="words"
    )


def run(config: TrainConfig, data: TrainData) -> TrainResult:
    return train(config, data, device=CPU, on_epoch=lambda report: "continue")


def test_a_run_ends_after_its_steps_and_validates_the_begun_epoch(data: TrainData) -> None:
    result = run(replace(CONFIG, epochs=10, max_steps=8), data)
    assert (result.state, result.steps, len(result.epochs)) == ("completed", 8, 2)
    # The course is that of eight steps: one of warm-up, then seven sevenths down to one.
    assert result.epochs[-1].metrics["learning_rate"] == pytest.approx(1e-3 / 7)


def test_the_loss_of_a_begun_epoch_is_the_mean_over_its_rows(data: TrainData) -> None:
    # A rate of nearly nothing: every batch's loss is that of the first weights.
    still = replace(CONFIG, learning_rate=1e-12, weight_decay=0.0)
    begun = run(replace(still, max_steps=2), data).epochs[0].metrics["train_loss"]
    whole = run(replace(still, epochs=1), data).epochs[0].metrics["train_loss"]
    assert begun == pytest.approx(whole, rel=0.1)


def test_steps_beyond_the_epochs_add_nothing(data: TrainData) -> None:
    assert run(replace(CONFIG, max_steps=1000), data).epochs == run(CONFIG, data).epochs


def test_steps_that_are_stated_alone_are_all_made() -> None:
    assert default_settings("scratch:tiny", {"max_steps"})["epochs"] == 1000
    assert "epochs" not in default_settings("scratch:tiny", {"batch_size"})


def reports(values: list[float], metric: str) -> list[EpochReport]:
    return [EpochReport(epoch, {metric: value}) for epoch, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "patience", "delta", "over"),
    [
        ([0.5], 1, 0.0, False),
        ([0.5, 0.5], 1, 0.0, True),
        ([0.5, 0.6, 0.6], 2, 0.0, False),
        ([0.5, 0.6, 0.6, 0.55], 2, 0.0, True),
        ([0.5, 0.54, 0.58], 2, 0.05, False),  # no gain of 0.05 alone, but together
        ([0.5, 0.54, 0.54], 2, 0.05, True),
        ([0.9, 0.1, 0.1, 0.1], None, 0.0, False),
    ],
)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_patience_counts_the_epochs_without_a_gain(
    values: list[float], patience: int | None, delta: float, over: bool, direction: Any
) -> None:
    config = replace(
        CONFIG,
        metric="macro_f1" if direction == "maximize" else "loss",
        direction=direction,
        early_stopping_patience=patience,
        early_stopping_delta=delta,
    )
    signed = values if direction == "maximize" else [1 - value for value in values]
    assert out_of_patience(reports(signed, config.metric), config) is over


def test_a_run_that_no_longer_improves_ends_completed(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.2, 0.4, 0.3, 0.4, 0.9])

    def scripted(*arguments: Any, **options: Any) -> Evaluation:
        evaluation = evaluate_split(*arguments, **options)
        return replace(evaluation, metrics=evaluation.metrics | {"macro_f1": next(values)})

    monkeypatch.setattr("model.training_run.evaluate_split", scripted)
    result = run(replace(CONFIG, epochs=9, early_stopping_patience=2), data)
    assert (result.state, result.stopped_early) == ("completed", True)
    assert (len(result.epochs), result.best_epoch, result.value) == (4, 1, 0.4)


def test_a_step_of_several_batches_is_the_step_of_one_large_batch(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A low rate, because AdamW blows up the rounding noise of gradients that are truly zero.
    config = replace(CONFIG, learning_rate=2e-4, epochs=2)
    large = run(replace(config, batch_size=16), data)
    seen: list[int] = []
    logits = Classifier.logits

    def recording(self: Classifier, sequences: Sequences, positions: Positions) -> torch.Tensor:
        if self.network.training:
            seen.append(len(positions))
        return logits(self, sequences, positions)

    monkeypatch.setattr(Classifier, "logits", recording)
    several = run(replace(config, batch_size=4, gradient_accumulation=4), data)
    assert set(seen) == {4}
    assert several.steps == large.steps == 6
    assert large.trained is not None
    assert several.trained is not None
    for name, weight in large.trained.weights.items():
        torch.testing.assert_close(several.trained.weights[name], weight, atol=1e-6, rtol=0)
