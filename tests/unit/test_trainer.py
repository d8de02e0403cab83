"""The real trainer's work on one job, without the processes around it."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForSequenceClassification

from model.config import Scalar
from model.data import SCHEMA
from model.errors import InputError
from model.splits import SplitRows, write_rows
from service.worker import trainer
from service.worker.pipe import Evaluate, SplitFile, Train
from service.worker.trainer import ModelRunner, read_split, train_config
from service.worker.trainer_loop import TrainerOptions

LABELS = ["no", "yes"]
ROWS = 48


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

    finished = runner.train(job, on_epoch=on_epoch, should_stop=lambda: False)

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
    finished = runner.train(job, on_epoch=lambda *_: "stop", should_stop=lambda: False)
    assert finished.best_epoch == 0
    assert finished.value is not None
    before = runner.train(job, on_epoch=lambda *_: "continue", should_stop=lambda: True)
    assert (before.value, before.confusion, before.metrics) == (None, None, {})


def test_a_kept_model_loads_and_scores_as_it_did(
    runner: ModelRunner, job: Train, tmp_path: Path
) -> None:
    finished = runner.train(job, on_epoch=lambda *_: "continue", should_stop=lambda: False)
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


def test_the_data_of_the_last_job_is_not_read_again(
    runner: ModelRunner, job: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runner.train(job, on_epoch=lambda *_: "continue", should_stop=lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "read_examples", None)  # reading would fail
        second = runner.train(job, on_epoch=lambda *_: "continue", should_stop=lambda: False)
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
