"""Epochs in which every class is seen equally often."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.config import TrainConfig
from model.normalised_file import Examples
from model.sampling import class_counts, epoch_rows
from model.training import TrainData, TrainResult, train

IDS = np.array([0, 0, 0, 0, 0, 1, 1, 3])


def test_oversampling_repeats_the_rows_of_rare_classes_evenly() -> None:
    rows = epoch_rows(IDS, "oversample", np.random.default_rng(1))
    assert np.bincount(IDS[rows]).tolist() == [5, 5, 0, 5]
    times = np.bincount(rows).tolist()
    assert times[:5] == [1, 1, 1, 1, 1]
    assert sorted(times[5:7]) == [2, 3]
    assert times[7] == 5


def test_undersampling_leaves_out_other_rows_every_epoch() -> None:
    generator = np.random.default_rng(1)
    epochs = [epoch_rows(IDS, "undersample", generator) for _ in range(20)]
    assert all(np.bincount(IDS[rows]).tolist() == [1, 1, 0, 1] for rows in epochs)
    assert {int(row) for rows in epochs for row in rows} == set(range(8))


def test_without_sampling_an_epoch_is_every_row_once_and_nothing_is_drawn() -> None:
    generator = np.random.default_rng(1)
    before = generator.bit_generator.state
    assert epoch_rows(IDS, "none", generator).tolist() == list(range(8))
    assert generator.bit_generator.state == before
    assert class_counts(IDS, 5, "none").tolist() == [5, 2, 0, 1, 0]
    assert class_counts(IDS, 5, "undersample").tolist() == [1, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("sampling", "steps"), [("none", 3), ("oversample", 4), ("undersample", 2)]
)
def test_an_epoch_has_the_steps_of_its_rows(
    examples: Callable[[int, int], Examples], sampling: str, steps: int
) -> None:
    few = examples(30, 1)
    # Ten rows of two classes and three of the third.
    chosen = [row for row in range(30) if row % 3 < 2 or row < 9]
    train_rows = Examples(
        [few.text_a[row] for row in chosen],
        None,
        [few.labels[row] for row in chosen],
        few.rows[chosen],
    )
    data = TrainData(
        train=train_rows,
        validation=few,
        labels=("login", "payment", "shipping"),
        dataset_key="few",
    )

    def run(weighting: str) -> TrainResult:
        config = TrainConfig(batch_size=8, max_length=16, epochs=2, precision="fp32")
        config = replace(config, sampling=sampling, class_weighting=weighting)  # type: ignore[arg-type]
        return train(config, data, device=torch.device("cpu"), on_epoch=lambda report: "continue")

    result = run("none")
    assert result.steps == 2 * steps
    if sampling != "none":  # classes that are seen equally often need no weights
        assert run("inverse").epochs == result.epochs
