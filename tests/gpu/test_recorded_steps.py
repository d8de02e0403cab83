"""A step that is recorded and replayed learns what the plain one learns, on a CUDA device."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import CUES, make_examples

from model import recorded_steps
from model.config import TrainConfig
from model.recorded_steps import RECORDED_TYPES
from model.training import TrainData, TrainResult, train

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device is visible to torch"
)
CONFIG = TrainConfig(
    learning_rate=1e-3,
    batch_size=8,
    max_length=16,
    epochs=3,
    seed=1,
    dropout=0.1,
    precision="fp32",
    model="scratch:tiny",
)


@pytest.fixture(scope="module")
def data() -> TrainData:
    return TrainData(
        train=make_examples(130, 1),  # the last batch has two rows
        validation=make_examples(60, 2),
        labels=tuple(CUES),
        dataset_key="recorded",
    )


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes that get recorded."""
    made: list[torch.Size] = []
    build = recorded_steps._Passes.__init__

    def counted(self: Any, forward: Any, halves: Any, inputs: torch.Tensor, *rest: Any) -> None:
        made.append(inputs.shape)
        build(self, forward, halves, inputs, *rest)

    monkeypatch.setattr(recorded_steps._Passes, "__init__", counted)
    return made


def run(config: TrainConfig, data: TrainData) -> TrainResult:
    device = torch.device("cuda", 0)
    return train(config, data, device=device, on_epoch=lambda report: "continue")


def plain(config: TrainConfig, data: TrainData) -> TrainResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded_steps, "can_record", lambda *_: False)
        return run(config, data)


def losses(result: TrainResult) -> list[float]:
    return [epoch.metrics[name] for epoch in result.epochs for name in ("train_loss", "loss")]


def test_fifty_steps_have_the_losses_of_plain_steps(
    data: TrainData, recordings: list[torch.Size]
) -> None:
    config = replace(CONFIG, dropout=0.0)
    found = losses(run(config, data))
    assert {shape[1] for shape in recordings} == {8}
    assert len(recordings) == len(set(recordings)) >= 2
    assert found == pytest.approx(losses(plain(config, data)), abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation": 2},
        {"freeze_layers": 1, "layer_decay": 0.8},
        {"ema_decay": 0.9},
        {"precision": "bf16"},
        {"precision": "bf16", "gradient_accumulation": 2, "freeze_layers": 1},
        {"pooling": "mean"},
        {"max_grad_norm": 0.1, "weight_decay": 0.3},
    ],
    ids=str,
)
def test_each_setting_learns_the_same_with_the_same_dropout(
    data: TrainData, recordings: list[torch.Size], changes: dict[str, Any]
) -> None:
    config = replace(CONFIG, **changes)
    found = losses(run(config, data))
    assert recordings
    tolerance = 2e-2 if config.precision == "bf16" else 1e-3
    assert found == pytest.approx(losses(plain(config, data)), abs=tolerance)


CHILD = """
import sys
sys.path[:0] = {folders!r}
from dataclasses import replace
from pathlib import Path
import test_recorded_steps as tests
from tiny_models import CUES, make_examples, write_encoder
data = tests.TrainData(
    train=make_examples(130, 1),
    validation=make_examples(60, 2),
    labels=tuple(CUES),
    dataset_key="child",
)
model = write_encoder(Path({path!r}), {model_type!r})
config = replace(tests.CONFIG, model=str(model), dropout=0.0)
print(tests.losses(tests.run(config, data)))
print(tests.losses(tests.plain(config, data)))
"""


@pytest.mark.parametrize("model_type", sorted(RECORDED_TYPES))
def test_every_architecture_can_be_recorded(tmp_path: Path, model_type: str) -> None:
    """In a process of its own: a recording that fails spoils the generator of random numbers."""
    here = Path(__file__).parent
    code = CHILD.format(
        folders=[str(here), str(here.parent / "support")],
        path=str(tmp_path / model_type),
        model_type=model_type,
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = (np.array(eval(line)) for line in done.stdout.splitlines()[-2:])
    assert found == pytest.approx(expected, abs=1e-4)


def test_memory_that_runs_out_while_recording_splits_the_batch(
    data: TrainData, monkeypatch: pytest.MonkeyPatch, recordings: list[torch.Size]
) -> None:
    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    record: Callable[..., Any] = recorded_steps._Passes.__init__

    def once(self: Any, *arguments: Any) -> None:
        fail() if len(recordings) == 1 else record(self, *arguments)

    monkeypatch.setattr(recorded_steps._Passes, "__init__", once)
    config = replace(CONFIG, dropout=0.0)
    found = losses(run(config, data))
    assert len(recordings) == 1  # and then never again
    assert found == pytest.approx(losses(plain(config, data)), abs=1e-3)
