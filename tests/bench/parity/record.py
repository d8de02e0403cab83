"""What a training gave, and the file that keeps it, so that an interrupted comparison goes on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parity.cases import Plan, Side
from parity.scoring import evaluation_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a side hands back."""

    best_epoch: int
    """0-based."""
    steps: int
    train_s: float
    """Wall clock with the validation after each epoch, without loading and the test split."""
    validation: Any
    """Predictions of the best epoch, in the task's own dataclass; and those of the test split."""
    test: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished training, as it stands in the file."""

    key: str
    case: str
    policy: str
    side: Side
    seed: int
    best_epoch: int
    steps: int
    train_s: float
    device: str
    """What it ran on, by name."""
    threads: int
    versions: dict[str, str]
    validation: dict[str, float]
    test: dict[str, float]
    matrix_labels: list[str]
    matrix_unit: str
    matrix: list[list[int]]
    """Of the test split; rows are true labels."""


def finished_run(
    plan: Plan,
    labels: tuple[str, ...],
    outcome: Outcome,
    *,
    device: str,
    threads: int,
    versions: dict[str, str],
) -> Run:
    validation, test = (
        evaluation_of(plan.case.task, labels, predictions)
        for predictions in (outcome.validation, outcome.test)
    )
    usual = test.matrices[0]
    return Run(
        key=plan.key,
        case=plan.case.name,
        policy=plan.policy,
        side=plan.side,
        seed=plan.seed,
        best_epoch=outcome.best_epoch,
        steps=outcome.steps,
        train_s=outcome.train_s,
        device=device,
        threads=threads,
        versions=versions,
        validation=_stated(validation.metrics),
        test=_stated(test.metrics),
        matrix_labels=list(usual.labels),
        matrix_unit=usual.unit,
        matrix=usual.counts.tolist(),
    )


def _stated(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "loss"}


def append(path: Path, run: Run) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def read(path: Path) -> list[Run]:
    """The runs of the file; none where there is no file."""
    if not path.is_file():
        return []
    return [Run(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
