"""The moving average of the weights is what is validated and kept."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from model.averaging import WeightAverage, decay_at
from model.config import TrainConfig
from model.normalised_file import Examples
from model.training import TrainData, train

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")


def test_the_decay_climbs_to_what_was_asked_for() -> None:
    assert decay_at(0.9, 1) == pytest.approx(2 / 11)
    assert decay_at(0.9, 8) == pytest.approx(9 / 18)
    assert decay_at(0.9, 1000) == 0.9


def test_the_average_of_two_steps_is_that_of_the_formula() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    average = WeightAverage(layer, 0.5)
    nn.init.constant_(layer.weight, 12.0)
    average.update(1)  # 2/11 of 1 and 9/11 of 12 is 10
    nn.init.constant_(layer.weight, 14.0)
    average.update(2)  # a quarter of 10 and three quarters of 14 is 13
    with average.in_place():
        assert layer.weight.item() == pytest.approx(13)
    assert layer.weight.item() == 14


def test_a_decay_of_zero_follows_nothing() -> None:
    assert WeightAverage(nn.Linear(1, 1), 0.0).values == {}


def test_a_run_keeps_and_scores_the_average_of_its_steps(
    examples: Callable[[int, int], Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = TrainData(
        train=examples(24, 1), validation=examples(12, 2), labels=LABELS, dataset_key="few"
    )
    plain = TrainConfig(
        learning_rate=1e-3, batch_size=8, max_length=16, epochs=1, precision="fp32", seed=3
    )
    steps: list[torch.Tensor] = []
    update = WeightAverage.update

    def recording(self: WeightAverage, updates: int) -> None:
        if updates == 1:
            steps.append(self.values["classifier.weight"].clone())
        update(self, updates)
        steps.append(self._weights["classifier.weight"].detach().clone())

    monkeypatch.setattr(WeightAverage, "update", recording)
    averaged = train(
        replace(plain, ema_decay=0.9), data, device=CPU, on_epoch=lambda report: "continue"
    )
    expected = steps[0]
    for number, weights in enumerate(steps[1:], start=1):
        kept = (1 + number) / (10 + number)
        expected = kept * expected + (1 - kept) * weights
    assert len(steps) == 4
    assert averaged.trained is not None
    found = averaged.trained.weights["classifier.weight"]
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)
    monkeypatch.undo()
    last = train(plain, data, device=CPU, on_epoch=lambda report: "continue")
    assert last.metrics["loss"] != averaged.metrics["loss"]
    assert last.trained is not None
    torch.testing.assert_close(last.trained.weights["classifier.weight"], steps[-1])
