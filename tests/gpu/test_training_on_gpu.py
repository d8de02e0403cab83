"""The same loop on a CUDA device. Run with `pytest tests/gpu` on a machine that has one."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from model.batches import Positions
from model.config import TrainConfig
from model.evaluation import evaluate
from model.memory import PartSize
from model.normalised_file import Examples
from model.training import CheckpointPlan, TrainData, TrainResult, train

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device is visible to torch"
)
CUDA = torch.device("cuda", 0)
CUES = {"login": "password", "payment": "refund", "shipping": "parcel"}
CONFIG = TrainConfig(
    learning_rate=1e-3, batch_size=32, max_length=16, epochs=4, seed=1, dropout=0.0
)


def examples(rows: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    labels = [list(CUES)[row % 3] for row in range(rows)]
    filler = ("the", "my", "please", "card", "again", "new")
    texts = [" ".join([*rng.choice(filler, size=rng.integers(1, 9)), CUES[x]]) for x in labels]
    return Examples(texts, None, labels, np.arange(1, rows + 1))


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData(
        train=examples(240, 1), validation=examples(60, 2), labels=tuple(CUES), dataset_key="gpu"
    )


def run(config: TrainConfig, data: TrainData, device: torch.device = CUDA) -> TrainResult:
    return train(config, data, device=device, on_epoch=lambda report: "continue")


def test_auto_precision_follows_the_card_and_the_task_is_learned(data: TrainData) -> None:
    result = run(CONFIG, data)
    native = torch.cuda.get_device_capability(0)[0] >= 8
    assert result.precision == ("bf16" if native else "fp32")
    assert result.device_name == torch.cuda.get_device_name(0)
    assert result.metrics["accuracy"] > 0.9


def test_a_few_steps_give_the_losses_of_the_cpu(data: TrainData) -> None:
    config = replace(CONFIG, precision="fp32", epochs=1)
    on_card, on_cpu = run(config, data), run(config, data, torch.device("cpu"))
    assert on_card.metrics["loss"] == pytest.approx(on_cpu.metrics["loss"], abs=0.02)


def test_the_kept_weights_are_off_the_card_and_evaluate_alike(
    data: TrainData, tmp_path: Path
) -> None:
    result = run(CONFIG, data)
    assert result.trained is not None
    assert {tensor.device.type for tensor in result.trained.weights.values()} == {"cpu"}
    result.save(tmp_path / "saved")
    again = evaluate(tmp_path / "saved", data.validation, data.labels, CONFIG, device=CUDA)
    assert again.metrics["loss"] == pytest.approx(result.metrics["loss"], abs=0.01)


def test_a_card_with_little_memory_splits_the_batch_and_still_trains(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real out-of-memory error, from the allocator's own limit for this process."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    config = replace(CONFIG, batch_size=4096, max_length=512, epochs=1, model="scratch:mini")
    long = Examples(
        [f"{text} " * 100 for text in data.train.text_a] * 10,
        None,
        data.train.labels * 10,
        np.arange(1, 2401),
    )
    shrink, shrunk = PartSize.shrink, []

    def counted(size: PartSize, positions: Positions, lengths: Positions) -> None:
        shrunk.append(len(positions))
        shrink(size, positions, lengths)

    monkeypatch.setattr(PartSize, "shrink", counted)
    torch.cuda.set_per_process_memory_fraction(min(1.0, 3 * 2**30 / total))
    try:
        result = run(config, replace(data, train=long, dataset_key="long"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert shrunk[0] == 2400
    assert result.steps == 1


def test_a_run_goes_on_where_it_stood_with_the_same_dropout_draws(
    data: TrainData, tmp_path: Path
) -> None:
    """Other draws would move the losses by more; atomic additions move only their last bits."""
    config = replace(CONFIG, dropout=0.3, precision="fp32", epochs=2)
    path, asked = tmp_path / "state.safetensors", count()
    whole = run(config, data)
    stopped = train(
        config,
        data,
        device=CUDA,
        on_epoch=lambda report: "continue",
        should_stop=lambda: "no" if next(asked) < 11 else "after_saving",
        checkpoint=CheckpointPlan(path),
    )
    assert (stopped.state, stopped.steps) == ("stopped", 11)
    resumed = train(
        config,
        data,
        device=CUDA,
        on_epoch=lambda report: "continue",
        checkpoint=CheckpointPlan(path, resume=path),
    )
    assert (resumed.resumed_from_epoch, resumed.problems) == (1, ())
    for found, expected in zip(resumed.epochs, whole.epochs, strict=True):
        assert found.metrics["train_loss"] == pytest.approx(
            expected.metrics["train_loss"], abs=1e-3
        )
