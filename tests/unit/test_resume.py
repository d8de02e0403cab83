"""A run that was stopped and goes on ends with the bits of one that ran through."""

import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from model.batches import Positions
from model.classifier import Classifier
from model.config import TrainConfig
from model.normalised_file import Examples
from model.tokens import Sequences
from model.training import (
    CheckpointPlan,
    Decision,
    EpochReport,
    Stop,
    TrainData,
    TrainResult,
    train,
)

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")
# 90 rows in batches of 16 are 6 steps an epoch and 18 in all. Whatever could be forgotten in a
# checkpoint matters here: dropout draws, class weights, a warm-up that ends within an epoch.
CONFIG = TrainConfig(
    learning_rate=2e-3,
    batch_size=16,
    max_length=16,
    epochs=3,
    seed=3,
    precision="fp32",
    dropout=0.2,
    class_weighting="inverse",
    label_smoothing=0.1,
    lr_schedule="cosine",
    warmup_ratio=0.5,
)
STEPS = 18


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(examples: Callable[[int, int], Examples]) -> TrainData:
    return TrainData(
        train=examples(90, 1), validation=examples(30, 2), labels=LABELS, dataset_key="words"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.safetensors"


def go_on(report: EpochReport) -> Decision:
    return "continue"


def run(
    config: TrainConfig, data: TrainData, plan: CheckpointPlan | None = None, **options: Any
) -> TrainResult:
    defaults: dict[str, Any] = {"device": CPU, "on_epoch": go_on, "checkpoint": plan}
    return train(config, data, **defaults | options)


def stop_after(steps: int, how: Stop = "after_saving") -> Callable[[], Stop]:
    asked = count()
    return lambda: "no" if next(asked) < steps else how


def outcome(result: TrainResult) -> str:
    """A hash over everything that a run finds out; not over the time that it took."""
    digest = hashlib.sha256()
    assert result.best is not None
    assert result.trained is not None
    facts = [
        [[report.epoch, report.metrics] for report in result.epochs],
        result.best_epoch,
        result.metrics,
        [[entry.label, entry.f1, entry.support] for entry in result.per_class],
        result.best.confusion.tolist(),
        result.steps,
        result.state,
    ]
    digest.update(json.dumps(facts).encode())
    for name in sorted(result.trained.weights):
        digest.update(result.trained.weights[name].numpy().tobytes())
    predictions = result.best.predictions
    for column in (predictions.rows, predictions.true, predictions.predicted):
        digest.update(column.tobytes())
    digest.update(predictions.probability.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("steps", [0, 1, 5, 6, 7, 11, 12, 17])
def test_a_run_stopped_at_any_step_ends_as_if_it_had_not_been(
    data: TrainData, path: Path, steps: int
) -> None:
    whole = run(CONFIG, data)
    first = run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(steps))
    assert (first.state, first.steps) == ("stopped", steps)
    torch.manual_seed(5)  # another process would stand elsewhere
    second = run(CONFIG, data, CheckpointPlan(path, resume=path))
    assert second.resumed_from_epoch == steps // 6
    assert second.problems == ()
    assert outcome(second) == outcome(whole)
    assert (whole.resumed_from_epoch, whole.state) == (None, "completed")


def test_a_run_stopped_before_every_single_step_ends_as_if_it_had_not_been(
    data: TrainData, path: Path, model_folder: Callable[[str], Path]
) -> None:
    config = replace(CONFIG, model=str(model_folder("bert")))
    plan = CheckpointPlan(path, resume=path)
    result = run(config, data, plan, should_stop=stop_after(1))
    for stop in range(2, STEPS):
        result = run(config, data, plan, should_stop=stop_after(1))
        assert result.steps == stop
    assert outcome(run(config, data, plan)) == outcome(run(config, data))


SETTINGS: dict[str, dict[str, Any]] = {
    "gentle": {"layer_decay": 0.8, "freeze_layers": 1},
    "averaged": {"ema_decay": 0.9},
    "accumulated": {"batch_size": 8, "gradient_accumulation": 2},
    "focal and resampled": {
        "sampling": "undersample",
        "loss": "focal",
        "class_weighting": "effective_number",
    },
    "augmented": {"word_dropout": 0.2, "random_swap": 0.3},
    "by steps": {"epochs": 9, "max_steps": 15},
    "pooled": {"pooling": "mean"},
    "windows": {"truncation": "windows", "max_length": 6, "window_pooling": "max"},
    # The metric's gains are below one, so the third epoch ends the run.
    "impatient": {"epochs": 9, "early_stopping_patience": 2, "early_stopping_delta": 1.0},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_resumes_with_the_same_bits(data: TrainData, path: Path, name: str) -> None:
    config = replace(CONFIG, **SETTINGS[name])
    whole = run(config, data)
    plan = CheckpointPlan(path, resume=path)
    for _ in range(0, whole.steps - 4, 4):
        run(config, data, plan, should_stop=stop_after(4))
    again = run(config, data, plan)
    assert again.resumed_from_epoch is not None
    assert again.problems == ()
    assert (again.stopped_early, outcome(again)) == (whole.stopped_early, outcome(whole))
    assert outcome(run(config, data)) == outcome(whole)  # whatever ran before it
    if name == "impatient":
        assert (whole.stopped_early, len(whole.epochs)) == (True, 3)


CHILD = """
import sys
sys.path[:0] = {folders!r}
import torch
from tiny_models import make_examples
from test_resume import CONFIG, LABELS, CheckpointPlan, TrainData, outcome, run
from pathlib import Path
torch.set_num_threads(1)
path = Path({path!r})
data = TrainData(
    train=make_examples(90, 1), validation=make_examples(30, 2), labels=LABELS, dataset_key="words"
)
result = run(CONFIG, data, CheckpointPlan(path, resume=path))
print(result.resumed_from_epoch, *result.problems, outcome(result))
"""


def test_another_process_goes_on_with_the_same_bits(data: TrainData, path: Path) -> None:
    run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(9))
    here = Path(__file__).parent
    folders = [str(here), str(here.parent / "support")]
    code = CHILD.format(folders=folders, path=str(path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == f"1 {outcome(run(CONFIG, data))}\n", done.stderr


def limit_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Let no more than ``rows`` rows through the network at once while it trains."""

    logits = Classifier.logits

    def limited(self: Classifier, sequences: Sequences, positions: Positions) -> torch.Tensor:
        if self.network.training and len(positions) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, sequences, positions)

    monkeypatch.setattr(Classifier, "logits", limited)


def test_what_was_learned_about_the_memory_is_kept(
    data: TrainData, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        limit_rows(short, 5)
        whole = run(CONFIG, data)
        run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(8))
    # There is memory enough now; the batches are split all the same, so the bits are the same.
    assert outcome(run(CONFIG, data, CheckpointPlan(path, resume=path))) == outcome(whole)
    assert outcome(run(CONFIG, data)) != outcome(whole)


def recorder(
    told: list[int], answers: dict[int, Decision] | None = None
) -> Callable[[EpochReport], Decision]:
    def on_epoch(report: EpochReport) -> Decision:
        told.append(report.epoch)
        return (answers or {}).get(report.epoch, "continue")

    return on_epoch


def test_a_save_decision_saves_the_end_of_its_epoch_and_says_so(
    data: TrainData, path: Path
) -> None:
    saved: list[tuple[int, bool]] = []

    def on_saved(finished_epochs: int) -> None:
        saved.append((finished_epochs, path.is_file()))

    plan = CheckpointPlan(path, on_saved=on_saved)
    whole = run(CONFIG, data, plan, on_epoch=recorder([], {1: "save"}))
    assert saved == [(2, True)]
    assert outcome(whole) == outcome(run(CONFIG, data))
    told: list[int] = []
    resumed = run(CONFIG, data, CheckpointPlan(path, resume=path), on_epoch=recorder(told))
    assert resumed.resumed_from_epoch == 2
    assert told == [0, 1, 2]
    assert outcome(resumed) == outcome(whole)


def test_a_finished_run_whose_result_was_lost_needs_no_further_step(
    data: TrainData, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(CONFIG, data, CheckpointPlan(path), on_epoch=recorder([], {2: "save"}))
    monkeypatch.setattr("model.training_run.TrainingRun.learn", None)  # a step would fail
    again = run(CONFIG, data, CheckpointPlan(path, resume=path))
    assert again.resumed_from_epoch == 3
    assert outcome(again) == outcome(whole)


def test_a_stop_decision_is_heard_again_at_the_epoch_where_the_run_stands(
    data: TrainData, path: Path
) -> None:
    run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(14))
    told: list[int] = []
    plan = CheckpointPlan(path, resume=path)
    result = run(CONFIG, data, plan, on_epoch=recorder(told, {0: "stop"}))
    assert (result.state, result.steps, told) == ("completed", STEPS, [0, 1, 2])

    told.clear()
    result = run(CONFIG, data, plan, on_epoch=recorder(told, {0: "stop", 1: "stop"}))
    assert (result.state, result.steps, told) == ("stopped", 14, [0, 1])

    told.clear()
    run(CONFIG, data, plan, on_epoch=recorder(told, {0: "stop"}), should_stop=stop_after(0))
    assert told == [0]


def test_only_the_last_epoch_told_again_may_be_saved_again(data: TrainData, path: Path) -> None:
    run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(14))
    saved: list[int] = []
    plan = CheckpointPlan(path.with_name("other"), resume=path, on_saved=saved.append)
    decide = recorder([], {0: "save", 1: "save"})
    run(CONFIG, data, plan, on_epoch=decide, should_stop=stop_after(0, "now"))
    assert saved == [2]
    resumed = run(CONFIG, data, CheckpointPlan(path, resume=plan.path))
    assert outcome(resumed) == outcome(run(CONFIG, data))


def test_a_stop_decision_leaves_a_state_when_one_is_asked_for(data: TrainData, path: Path) -> None:
    decide = recorder([], {0: "stop"})
    run(CONFIG, data, CheckpointPlan(path), on_epoch=decide, should_stop=stop_after(6))
    resumed = run(CONFIG, data, CheckpointPlan(path, resume=path))
    assert resumed.resumed_from_epoch == 1
    assert outcome(resumed) == outcome(run(CONFIG, data))


def test_states_are_saved_as_time_passes_and_any_of_them_serves(
    data: TrainData, path: Path
) -> None:
    whole = run(CONFIG, data)
    plan = CheckpointPlan(path, every_s=0)  # before every step
    killed = run(CONFIG, data, plan, should_stop=stop_after(10, "now"))
    assert killed.steps == 10
    told: list[int] = []
    resumed = run(CONFIG, data, CheckpointPlan(path, resume=path), on_epoch=recorder(told))
    assert told == [0, 1, 2]
    assert outcome(resumed) == outcome(whole)


def test_a_run_shorter_than_the_interval_writes_nothing(data: TrainData, path: Path) -> None:
    run(CONFIG, data, CheckpointPlan(path))
    run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(3, "now"))
    assert list(path.parent.iterdir()) == []


def test_the_seconds_of_earlier_processes_count(
    data: TrainData, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0, 1000)
    with monkeypatch.context() as slow:
        slow.setattr("model.training_run.time.perf_counter", lambda: float(next(clock)))
        run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(2))
    second = run(CONFIG, data, CheckpointPlan(path, resume=path), should_stop=stop_after(0))
    assert 1000 <= second.train_seconds < 2000


OTHER: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "seed": ({"seed": 4}, {}, "other seed"),
    "settings": ({"learning_rate": 1e-3, "dropout": 0.1}, {}, "other dropout, learning_rate"),
    "model": ({"model": "scratch:mini"}, {}, "other model"),
    "data": ({}, {"dataset_key": "others"}, "other dataset"),
    "labels": ({}, {"labels": (*LABELS, "spare")}, "other labels"),
    "precision": ({"precision": "bf16"}, {}, "other precision"),
}


@pytest.mark.parametrize("other", OTHER)
def test_the_state_of_another_job_is_left_alone_and_named(
    data: TrainData, path: Path, other: str
) -> None:
    settings, facts, reason = OTHER[other]
    run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(7))
    config, data = replace(CONFIG, epochs=3, **settings), replace(data, **facts)
    result = run(config, data, CheckpointPlan(path, resume=path), should_stop=stop_after(1))
    assert (result.resumed_from_epoch, result.steps) == (None, 1)
    (problem,) = result.problems
    assert problem.startswith("checkpoint_ignored: ")
    assert reason in problem


def test_a_model_folder_may_stand_elsewhere_when_its_content_is_named(
    data: TrainData, path: Path, model_folder: Callable[[str], Path]
) -> None:
    here = model_folder("bert")
    data = replace(data, model_key="tiny")
    config = replace(CONFIG, model=str(here))
    whole = run(config, data)
    run(config, data, CheckpointPlan(path), should_stop=stop_after(7))
    there = here.rename(here.with_name("elsewhere"))
    moved = run(replace(config, model=str(there)), data, CheckpointPlan(path, resume=path))
    assert moved.resumed_from_epoch == 1
    assert outcome(moved) == outcome(whole)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "flipped bit":
        content[-100] ^= 1
    elif how == "garbage":
        content = bytearray(b"no tensors at all" * 50)
    else:
        content.clear()
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "flipped bit", "garbage", "empty"])
def test_a_damaged_state_is_left_alone_and_named(data: TrainData, path: Path, how: str) -> None:
    run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(7))
    damage(path, how)
    result = run(CONFIG, data, CheckpointPlan(path, resume=path))
    assert result.resumed_from_epoch is None
    assert outcome(result) == outcome(run(CONFIG, data))
    (problem,) = result.problems
    assert problem.startswith("checkpoint_ignored: ")


def test_an_absent_state_is_no_problem(data: TrainData, path: Path) -> None:
    result = run(CONFIG, data, CheckpointPlan(path, resume=path), should_stop=stop_after(0))
    assert (result.resumed_from_epoch, result.problems) == (None, ())


@contextmanager
def files_limited_to(limit_bytes: int) -> Iterator[None]:
    """A real failure in the middle of a write, which needs no rights: EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_state_that_cannot_be_written_ends_no_run_and_is_named_once(
    data: TrainData, path: Path
) -> None:
    saved: list[int] = []
    plan = CheckpointPlan(path, every_s=0, on_saved=saved.append)
    with files_limited_to(100_000):
        result = run(CONFIG, data, plan, on_epoch=recorder([], {0: "save"}))
    assert outcome(result) == outcome(run(CONFIG, data))
    (problem,) = result.problems
    assert problem.startswith("checkpoint_failed: ")
    assert os.strerror(errno.EFBIG) in problem
    assert saved == []
    assert list(path.parent.iterdir()) == []


def test_a_disk_that_fills_up_is_named_with_advice_and_the_older_state_stands(
    data: TrainData, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(CONFIG, data, CheckpointPlan(path), should_stop=stop_after(7))
    older = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("model.state_file.os.fsync", full)
    plan = CheckpointPlan(path, every_s=0, resume=path)
    result = run(CONFIG, data, plan)
    assert outcome(result) == outcome(run(CONFIG, data))
    (problem,) = result.problems
    assert problem.startswith("disk_full: ")
    assert "Free some space" in problem
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == older
