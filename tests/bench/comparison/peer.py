"""The peer: `Trainer.hyperparameter_search` with Optuna, written as its users write it.

    python -m comparison.peer defaults|tuned PLAN.json RECORD.json

`defaults` leaves every setting about speed as Transformers has it. `tuned` sets what somebody who
knows the library would: bf16 where the hardware multiplies it, batches of like length, no files
written, sorted validation rows in large batches, and on a GPU workers that load ahead. Both pad
each batch to its longest row, keep the tokens between trials, and share the plan's parameters.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import transformers
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from comparison.peer_clock import PeerClock
from comparison.plan import Plan
from comparison.record import StudyRecord, TrialRecord
from comparison.rows import read_rows
from model.devices import resolve_precision

Rows = list[dict[str, Any]]


class Texts:
    """Both splits as token ids: tokenized once per length, as `Dataset.map` would keep them."""

    def __init__(self, plan: Plan, tokenizer: Any, *, sort_validation: bool) -> None:
        self._tokenizer = tokenizer
        self._train = read_rows(plan.train_file)
        self._validation = read_rows(plan.validation_file)
        if sort_validation:
            self._validation.sort(key=lambda row: -len(row[0]))
        self.labels = sorted({label for _, label in self._train})
        self._kept: dict[int, tuple[Rows, Rows]] = {}

    def cut(self, max_length: int) -> tuple[Rows, Rows]:
        """Train and validation rows of at most ``max_length`` tokens."""
        if max_length not in self._kept:
            splits = (self._train, self._validation)
            train, validation = (self._encode(split, max_length) for split in splits)
            self._kept[max_length] = train, validation
        return self._kept[max_length]

    def _encode(self, rows: list[tuple[str, str]], max_length: int) -> Rows:
        encoded = self._tokenizer(
            [text for text, _ in rows], truncation=True, max_length=max_length
        )
        labels = [self.labels.index(label) for _, label in rows]
        return [
            {name: values[index] for name, values in encoded.items()} | {"label": label}
            for index, label in enumerate(labels)
        ]


def arguments(plan: Plan, folder: Path, *, tuned: bool) -> TrainingArguments:
    """The settings of training, which are the same for all, and those of speed."""
    training: dict[str, Any] = {
        "num_train_epochs": plan.case.epochs,
        "weight_decay": 0.01,
        "warmup_steps": 0.1,
        "eval_strategy": "epoch",
        "seed": plan.seed,
        "report_to": "none",
        "use_cpu": plan.device == "cpu",
    }
    return TrainingArguments(str(folder), **training, **(_tuned(plan) if tuned else {}))


def _tuned(plan: Plan) -> dict[str, Any]:
    device = torch.device(plan.device)
    gpu = plan.device == "cuda"
    return {
        "bf16": resolve_precision("auto", device) == "bf16",
        "tf32": True if gpu else None,
        "optim": "adamw_torch_fused",
        "train_sampling_strategy": "group_by_length",
        "per_device_eval_batch_size": 512 if gpu else 128,
        # On two cores loading in other processes takes the cores from the training.
        "dataloader_num_workers": 4 if gpu else 0,
        "dataloader_persistent_workers": gpu,
        "dataloader_pin_memory": gpu,
        "save_strategy": "no",
        "logging_strategy": "epoch",
        "disable_tqdm": True,
    }


def run(plan: Plan, folder: Path, *, tuned: bool) -> StudyRecord:
    """Run the plan's trials as one search."""
    tokenizer = AutoTokenizer.from_pretrained(plan.model_folder)
    texts = Texts(plan, tokenizer, sort_validation=tuned)
    clock = PeerClock()
    longest = max(trial.max_length for trial in plan.case.trials)

    def model_init(trial: optuna.Trial | None = None) -> Any:
        if trial is not None:  # `TrainingArguments` knows no sequence length
            max_length = trial.suggest_int("max_length", 4, longest)
            trainer.train_dataset, trainer.eval_dataset = texts.cut(max_length)
        return AutoModelForSequenceClassification.from_pretrained(
            plan.model_folder, num_labels=len(texts.labels), ignore_mismatched_sizes=True
        )

    train, validation = texts.cut(plan.case.trials[0].max_length)
    trainer = Trainer(
        args=arguments(plan, folder, tuned=tuned),
        model_init=model_init,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics,
        callbacks=[clock],
    )
    storage = _fixed_trials(plan)
    started = datetime.now()
    trainer.hyperparameter_search(
        lambda trial: _suggest(trial, plan),
        lambda metrics: metrics["eval_accuracy"],
        n_trials=len(plan.case.trials),
        direction="maximize",
        backend="optuna",
        storage=storage,
        study_name=plan.case.name,
        load_if_exists=True,
    )
    ended = datetime.now()
    trials = optuna.load_study(study_name=None, storage=storage).trials
    return StudyRecord(
        search_s=(ended - started).total_seconds(),
        last_result_at=ended.timestamp(),
        trials=_records(trials, clock, started),
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )


def _fixed_trials(plan: Plan) -> Any:
    """A storage with one study whose trials are those of the plan."""
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name=plan.case.name, direction="maximize")
    for trial in plan.case.trials:
        study.enqueue_trial(
            {
                "learning_rate": trial.learning_rate,
                "per_device_train_batch_size": trial.batch_size,
                "max_length": trial.max_length,
            }
        )
    return storage


def _suggest(trial: optuna.Trial, plan: Plan) -> dict[str, Any]:
    """The search space; every trial is enqueued, so its values are the plan's."""
    batches = sorted({fixed.batch_size for fixed in plan.case.trials})
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-2, log=True),
        "per_device_train_batch_size": trial.suggest_categorical(
            "per_device_train_batch_size", batches
        ),
    }


def metrics(found: Any) -> dict[str, float]:
    predicted = np.argmax(found.predictions, axis=-1)
    return {
        "accuracy": float(accuracy_score(found.label_ids, predicted)),
        "macro_f1": float(f1_score(found.label_ids, predicted, average="macro")),
    }


def _records(
    trials: Sequence[optuna.trial.FrozenTrial], clock: PeerClock, started: datetime
) -> tuple[TrialRecord, ...]:
    return tuple(
        TrialRecord(
            number=trial.number,
            steps=spent.steps,
            train_s=spent.run_s - spent.evaluation_s,
            evaluation_s=spent.evaluation_s,
            trial_s=_seconds(trial.datetime_start, trial.datetime_complete),
            finished_s=_seconds(started, trial.datetime_complete),
            accuracy=spent.accuracy,
        )
        for trial, spent in zip(trials, clock.runs, strict=True)
    )


def _seconds(start: datetime | None, end: datetime | None) -> float:
    assert start is not None
    assert end is not None
    return (end - start).total_seconds()


def main() -> None:
    side, plan, record = sys.argv[1], Plan.read(Path(sys.argv[2])), Path(sys.argv[3])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    measured = run(plan, record.with_suffix(".files"), tuned=side == "tuned")
    record.write_text(json.dumps(asdict(measured)), encoding="utf-8")


if __name__ == "__main__":
    main()
