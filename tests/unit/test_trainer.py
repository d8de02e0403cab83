"""The real trainer's work on one job, without the processes around it."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForSequenceClassification

from model.config import Scalar
from model.errors import InputError, TrainingError
from model.normalised_file import SCHEMA
from model.splits import SplitRows, write_rows
from service.worker import trainer
from service.worker.checkpoints import finished_epochs
from service.worker.pipe import OTHER_CHECKPOINT, Evaluate, SplitFile, Train
from service.worker.trainer import ModelRunner, read_split, train_config
from service.worker.trainer_loop import TrainerOptions

LABELS = ["no", "yes"]
ROWS = 48
UNDISTURBED: dict[str, Any] = {
    "should_stop": lambda: "no",
    "on_resumed": lambda _: None,
    "on_saved": lambda _: None,
}


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    """Rows that are `yes` where they say so; source row numbers are 10 times the position."""
    texts = [f"{'good' if row % 2 else 'bad'} thing number {row % 7}" for row in range(ROWS)]
    columns = {
        "row": [10 * row for row in range(ROWS)],
        "text_a": texts,
        "text_b": [None] * ROWS,
        "label": [LABELS[row % 2] for row in range(ROWS)],
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


@pytest.fixture
def indices(tmp_path: Path) -> Path:
    positions = np.arange(ROWS)
    held_out = positions % 6
    rows = SplitRows(positions[held_out > 1], positions[held_out == 0], positions[held_out == 1])
    write_rows(rows, tmp_path / "indices.parquet")
    return tmp_path / "indices.parquet"


@pytest.fixture
def job(train_file: Path, indices: Path, tmp_path: Path) -> Train:
    config: dict[str, Scalar | None] = {"model": "scratch:tiny", "epochs": 2, "batch_size": 8}
    return Train(
        job="t1/1",
        config={
            **config,
            "max_length": 16,
            "learning_rate": 1e-3,
            "metric": "accuracy",
            "precision": "fp32",
        },
        labels=LABELS,
        train=SplitFile(str(train_file), "train", str(indices)),
        validation=SplitFile(str(train_file), "validation", str(indices)),
        dataset_key="d1:i1",
        model_key="scratch:tiny",
        predictions_path=str(tmp_path / "predictions.csv"),
    )


@pytest.fixture
def runner() -> ModelRunner:
    options = TrainerOptions(parent=0, device="cpu", slot=0, threads=2, cache_bytes=100_000_000)
    return ModelRunner(options)


def read_csv(path: str) -> list[list[str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_rows_of_a_shared_file_follow_the_indices(train_file: Path, indices: Path) -> None:
    validation = read_split(SplitFile(str(train_file), "validation", str(indices)))
    assert validation.rows.tolist() == [0, 60, 120, 180, 240, 300, 360, 420]
    assert len(read_split(SplitFile(str(train_file), "train", str(indices))).rows) == 32
    assert len(read_split(SplitFile(str(train_file), "train")).rows) == ROWS


def test_a_job_reports_each_epoch_and_scores_the_validation_rows(
    runner: ModelRunner, job: Train
) -> None:
    seen: list[tuple[int, dict[str, float]]] = []

    def on_epoch(epoch: int, metrics: dict[str, float]) -> Any:
        seen.append((epoch, metrics))
        return "continue"

    finished = runner.train(job, on_epoch=on_epoch, **UNDISTURBED)

    assert [epoch for epoch, _ in seen] == [0, 1]
    assert finished.best_epoch in (0, 1)
    assert finished.value == seen[finished.best_epoch][1]["accuracy"]
    assert finished.value == finished.metrics["accuracy"]
    assert finished.confusion is not None
    assert finished.confusion.labels == LABELS
    assert [scores.support for scores in finished.per_class] == [8, 0]  # even rows only
    header, *rows = read_csv(job.predictions_path)
    assert header == ["row", "true", "predicted", "probability"]
    assert [row[:2] for row in rows] == [[str(60 * n), "no"] for n in range(8)]
    right = sum(row[1] == row[2] for row in rows)
    assert right / 8 == finished.value
    assert finished.info["threads"] == 2


def test_a_stopped_job_keeps_what_its_finished_epochs_gave(runner: ModelRunner, job: Train) -> None:
    finished = runner.train(job, on_epoch=lambda *_: "stop", **UNDISTURBED)
    assert finished.best_epoch == 0
    assert finished.value is not None
    at_once: dict[str, Any] = {**UNDISTURBED, "should_stop": lambda: "now"}
    before = runner.train(job, on_epoch=lambda *_: "continue", **at_once)
    assert (before.value, before.confusion, before.metrics) == (None, None, {})


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_model_is_kept_with_its_onnx_file_and_the_next_trial_never_knows(
    runner: ModelRunner, job: Train, tmp_path: Path
) -> None:
    for name, onnx in (("with", True), ("after", False)):
        runner.train(replace(job, onnx=onnx), on_epoch=lambda *_: "continue", **UNDISTURBED)
        assert runner.keep(tmp_path / name) == []
    assert (tmp_path / "with/onnx/model.onnx").is_file()
    assert not (tmp_path / "after/onnx").exists()
    assert weights(tmp_path / "with") == weights(tmp_path / "after")


def test_a_model_that_cannot_be_translated_is_kept_without_the_file(
    runner: ModelRunner, job: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = iter(("onnx_failed", "disk_full"))

    def failed(folder: Path) -> None:
        raise TrainingError(next(codes), "Why.")

    monkeypatch.setattr("model.onnx_export.export_onnx", failed)
    runner.train(replace(job, onnx=True), on_epoch=lambda *_: "stop", **UNDISTURBED)
    assert runner.keep(tmp_path / "model") == ["onnx_failed: The model has no ONNX file. Why."]
    assert (tmp_path / "model/model.safetensors").is_file()
    with pytest.raises(TrainingError):  # another machine, or this one later, has room for it
        runner.keep(tmp_path / "again")


def test_a_job_whose_onnx_file_cannot_be_made_here_fails_before_it_reads_anything(
    runner: ModelRunner, job: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.onnx_packages.find_spec", lambda name: None)
    nowhere = replace(job, onnx=True, train=SplitFile("/no/such/file", "train"))
    with pytest.raises(InputError, match=r"onnx, onnxscript, onnxruntime: pip install") as raised:
        runner.train(nowhere, on_epoch=lambda *_: "continue", **UNDISTURBED)
    assert raised.value.code == "onnx_not_installed"


def test_a_kept_model_loads_and_scores_as_it_did(
    runner: ModelRunner, job: Train, tmp_path: Path
) -> None:
    finished = runner.train(job, on_epoch=lambda *_: "continue", **UNDISTURBED)
    folder = tmp_path / "model"
    runner.keep(folder)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    assert loaded.config.id2label == {0: "no", 1: "yes"}
    again = runner.evaluate(
        Evaluate(
            job="t2/1",
            config={**job.config, "model": str(folder)},
            labels=LABELS,
            data=job.validation,
            predictions_path=str(tmp_path / "again.csv"),
        )
    )
    assert again.value == finished.value
    assert again.confusion == finished.confusion
    assert read_csv(str(tmp_path / "again.csv")) == read_csv(job.predictions_path)


def test_a_stopped_job_is_resumed_from_its_checkpoint_to_the_same_figures(
    runner: ModelRunner, job: Train, tmp_path: Path
) -> None:
    whole = runner.train(job, on_epoch=lambda *_: "continue", **UNDISTURBED)
    path = str(tmp_path / "state.safetensors")
    seen: list[int] = []
    saved: list[int] = []
    taken_over: list[int] = []

    def save(epoch: int, _: dict[str, float]) -> Any:
        seen.append(epoch)
        return "save"

    stop_after = iter(["no"] * 6)  # steps: four of the first epoch, two of the second
    stopped = runner.train(
        replace(job, checkpoint_path=path),
        on_epoch=save,
        should_stop=lambda: next(stop_after, "after_saving"),  # type: ignore[arg-type]
        on_resumed=taken_over.append,
        on_saved=saved.append,
    )
    assert taken_over == []
    assert (seen, saved, stopped.info["steps"]) == ([0], [1], 6)
    assert finished_epochs(Path(path)) == 1

    resumed = runner.train(
        replace(job, checkpoint_path=path, resume_path=path),
        on_epoch=save,
        **{**UNDISTURBED, "on_resumed": taken_over.append},
    )
    assert taken_over == [1]
    assert seen == [0, 0, 1]
    assert resumed.info["resumed_from_epoch"] == 1
    assert resumed.info["problems"] == []
    assert (resumed.metrics, resumed.value) == (whole.metrics, whole.value)
    assert resumed.confusion == whole.confusion


def test_a_checkpoint_of_another_job_is_told_of_and_left_alone(
    runner: ModelRunner, job: Train, tmp_path: Path
) -> None:
    path = str(tmp_path / "state.safetensors")
    runner.train(replace(job, checkpoint_path=path), on_epoch=lambda *_: "save", **UNDISTURBED)
    other = replace(job, config={**job.config, "seed": 5}, resume_path=path, checkpoint_path=path)
    finished = runner.train(other, on_epoch=lambda *_: "continue", **UNDISTURBED)
    assert finished.info["resumed_from_epoch"] is None
    [problem] = finished.info["problems"]
    assert problem.startswith("checkpoint_ignored: ")
    assert "seed" in problem


def test_a_damaged_checkpoint_fails_a_job_that_has_another_one(
    runner: ModelRunner, job: Train, tmp_path: Path
) -> None:
    path = tmp_path / "state.safetensors"
    saving = replace(job, checkpoint_path=str(path))
    runner.train(saving, on_epoch=lambda *_: "save", **UNDISTURBED)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert finished_epochs(path) is not None  # the header is whole

    anew = runner.train(
        replace(saving, resume_path=str(path)), on_epoch=lambda *_: "continue", **UNDISTURBED
    )
    assert anew.info["resumed_from_epoch"] is None
    with pytest.raises(InputError, match="checksum") as refused:
        runner.train(
            replace(saving, resume_path=str(path), resume_must_fit=True),
            on_epoch=lambda *_: "continue",
            **UNDISTURBED,
        )
    assert refused.value.code == OTHER_CHECKPOINT


@pytest.mark.parametrize("damage", ["torn", "foreign", "too_many_rows"])
def test_rows_that_cannot_be_read_are_named(train_file: Path, indices: Path, damage: str) -> None:
    if damage == "torn":
        train_file.write_bytes(train_file.read_bytes()[:-100])
    elif damage == "foreign":
        pq.write_table(pa.table({"other": [1]}), train_file)
    else:
        pq.write_table(pq.read_table(train_file).slice(0, 3), train_file)
    with pytest.raises(InputError, match="upload the data set again") as error:
        read_split(SplitFile(str(train_file), "train", str(indices)))
    assert error.value.code == "unreadable_dataset"


def test_the_data_of_the_last_job_is_not_read_again(
    runner: ModelRunner, job: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runner.train(job, on_epoch=lambda *_: "continue", **UNDISTURBED)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "read_examples", None)  # reading would fail
        second = runner.train(job, on_epoch=lambda *_: "continue", **UNDISTURBED)
    assert second.metrics == first.metrics


def test_an_unknown_setting_is_an_input_error() -> None:
    with pytest.raises(InputError, match="update it") as error:
        train_config({"model": "scratch:tiny", "flux": 1})
    assert error.value.code == "unknown_setting"


def test_the_device_says_what_it_is(runner: ModelRunner) -> None:
    device = runner.device()
    assert device.kind == "cpu"
    assert device.memory_bytes is not None
    assert device.memory_bytes > 1 << 28
    assert set(device.versions) >= {"python", "torch", "transformers"}
