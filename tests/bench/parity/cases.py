"""What is measured: data sets with their settings, and the runs that each of them takes."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from model.config import DataOptions, Split, Task, TrainConfig, Truncation
from model.data import normalise
from model.normalised_file import Examples, read_examples

Side = Literal["bertune", "trainer"]
SIDES: tuple[Side, ...] = ("bertune", "trainer")
TRAINER_POLICIES: tuple[Truncation, ...] = ("head", "tail")
"""What a Trainer's tokenizer can do: cut a text's end, or its beginning."""
FILES: dict[Split, str] = {"train": "train", "validation": "dev", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One data set and the settings that both sides train it with, chosen on its dev split."""

    name: str
    """Also the folder of its train, dev and test file."""
    task: Task
    metric: str
    """Names the best epoch and is what the table shows."""
    learning_rate: float
    batch_size: int
    max_length: int
    epochs: int
    suffix: str = "csv"
    policies: tuple[Truncation, ...] = ("head",)
    """Ways to cut long texts, `TRAINER_POLICIES` on both sides."""
    rows: int | None = None
    """Only so many of the train rows; None takes all."""
    trainer_log_odds: bool = False
    """Of multi_label: whether the Trainer's head starts at the log odds of its classes, as ours
    does, instead of at zeros."""

    def config(self, model: Path, policy: Truncation, seed: int) -> TrainConfig:
        return TrainConfig(
            model=str(model),
            task=self.task,
            seed=seed,
            metric=self.metric,
            truncation=policy,
            # Windows that do not overlap: what they read is what costs.
            window_stride=1.0 if policy == "windows" else 0.5,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            max_length=self.max_length,
            epochs=self.epochs,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A case's rows as Bertune's reader gives them, which both sides learn from."""

    splits: dict[Split, Examples]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One training: a case, a way to cut its texts, a side and a seed."""

    case: Case
    policy: Truncation
    side: Side
    seed: int
    model: str
    """The base model's name, by which results are told apart."""

    @property
    def key(self) -> str:
        """Equal for plans whose results are one and the same, whatever else was asked for."""
        fields = asdict(self)
        del fields["case"]["policies"]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


CASES = (
    Case(
        name="subj",
        task="single_label",
        metric="accuracy",
        learning_rate=8e-5,
        batch_size=32,
        max_length=64,
        epochs=2,
    ),
    Case(
        name="nlupp_banking",
        task="multi_label",
        metric="micro_f1",
        learning_rate=1e-4,
        batch_size=16,
        max_length=48,
        epochs=12,
    ),
    Case(
        name="wnut17",
        task="token",
        metric="entity_f1",
        learning_rate=2e-4,
        batch_size=16,
        max_length=64,
        epochs=4,
        suffix="jsonl",
    ),
    Case(
        name="banking77",
        task="single_label",
        metric="accuracy",
        learning_rate=2e-4,
        batch_size=16,
        max_length=64,
        epochs=3,
    ),
    Case(
        name="movie_reviews",
        task="single_label",
        metric="accuracy",
        learning_rate=1e-4,
        batch_size=16,
        max_length=128,
        epochs=3,
        policies=("head", "tail", "head_tail", "windows"),
    ),
)


def plans(cases: Sequence[Case], *, seeds: Iterable[int], model: str) -> list[Plan]:
    """Every training, seed by seed, and of a seed the sides in turn: a broken-off comparison has
    as many of one side as of the other, and the order favours neither."""
    return [
        Plan(case=case, policy=policy, side=side, seed=seed, model=model)
        for case in cases
        for seed in seeds
        for policy in case.policies
        for side in _in_turn(policy, seed)
    ]


def _in_turn(policy: Truncation, seed: int) -> tuple[Side, ...]:
    sides = SIDES if policy in TRAINER_POLICIES else SIDES[:1]
    return sides if seed % 2 == 0 else sides[::-1]


def read_rows(case: Case, data: Path, scratch: Path) -> Rows:
    """Read a case's files. Raises `InputError` as the reader does, for one that is missing too.

    Repeated rows are kept: the other side would learn from them too.
    """
    sources = {split: data / case.name / f"{name}.{case.suffix}" for split, name in FILES.items()}
    options = DataOptions(task=case.task, duplicates="keep")
    folder = scratch / case.name
    summary = normalise(sources, options, folder)
    splits = {split: read_examples(folder / f"{split}.parquet") for split in sources}
    if case.rows is not None:
        splits["train"] = first_rows(splits["train"], case.rows)
    return Rows(splits, summary.labels)


def first_rows(examples: Examples, count: int) -> Examples:
    return replace(
        examples,
        text_a=examples.text_a[:count],
        text_b=None,
        labels=examples.labels[:count],
        rows=examples.rows[:count],
    )


def shown(case: Case) -> dict[str, Any]:
    """The settings as people read them."""
    settings: dict[str, Any] = {
        "lr": f"{case.learning_rate:g}",
        "batch": case.batch_size,
        "length": case.max_length,
        "epochs": case.epochs,
    }
    if case.rows is not None:
        settings["train rows"] = case.rows
    if case.trainer_log_odds:
        settings["both heads from"] = "log odds"
    return settings
