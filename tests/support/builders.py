"""Rows and requests for tests of the queue; builders fill in what a test does not care for."""

from datetime import UTC, datetime, timedelta
from typing import Any

from service.store.database import Database
from service.store.identifiers import new_id
from service.store.tables import Dataset, DatasetFile, Study, Trial
from studies.resolution import resolve, trial_seed
from studies.spec import StudySpec
from studies.wire.leases import (
    ClassMetrics,
    ConfusionMatrix,
    EpochMetrics,
    FailureRequest,
    LeaseRequest,
    RenewRequest,
    ResultRequest,
)

LABELS = ["bill", "login", "refund"]
EPOCH_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def make_dataset(database: Database, *, test_rows: bool = False) -> str:
    """A data set of three classes, with a validation file and, if asked for, a test file."""
    dataset_id = new_id()
    splits = ["train", "validation", *(["test"] if test_rows else [])]
    with database.transaction() as session:
        session.add(
            Dataset(
                id=dataset_id,
                name="tickets",
                task="single_label",
                options={"test_fraction": 0.0},
                summary={
                    "labels": LABELS,
                    "columns": {"text_a": "text", "text_b": None, "label": "label"},
                    "files": {split: {"sha256": "a" * 64, "bytes": 10} for split in splits},
                    "rows": dict.fromkeys(splits, 30),
                },
                created_at=EPOCH_TIME,
            )
        )
        session.flush()
        session.add_all(
            DatasetFile(dataset_id=dataset_id, split=split, sha256="a" * 64, bytes=10, row_count=30)
            for split in splits
        )
    return dataset_id


def make_study(
    database: Database,
    *,
    n_trials: int = 3,
    max_parallel: int = 100,
    priority: int = 0,
    timeout_s: float | None = None,
    trial_timeout_s: float | None = None,
    test_rows: bool = False,
    age_s: float = 0,
    **spec: Any,
) -> str:
    """A study with its queued trials, as submission makes them; ``age_s`` makes it older."""
    study_id = new_id()
    document = StudySpec.model_validate(
        {
            "name": "tickets",
            "dataset": make_dataset(database, test_rows=test_rows),
            "budget": {
                "n_trials": n_trials,
                "max_parallel": max_parallel,
                "timeout_s": timeout_s,
                "trial_timeout_s": trial_timeout_s,
            },
            "priority": priority,
            "pruner": {"name": "none"},
            **spec,
        }
    )
    resolved = resolve(document, task="single_label", max_positions=128)
    with database.transaction() as session:
        session.add(
            Study(
                id=study_id,
                name=document.name,
                dataset_id=document.dataset,
                state="queued",
                model=document.model,
                task="single_label",
                metric=resolved.metric,
                direction=resolved.direction,
                spec=document.model_dump(mode="json"),
                model_facts={
                    "kind": "scratch",
                    "name": document.model,
                    "revision": None,
                    "key": document.model,
                    "max_positions": 128,
                    "model_type": "bert",
                    "files": [],
                },
                n_trials=n_trials,
                max_parallel=max_parallel,
                timeout_s=timeout_s,
                trial_timeout_s=trial_timeout_s,
                keep_models=document.checkpoint.keep,
                priority=priority,
                seed=document.seed,
                created_at=datetime.now(UTC) - timedelta(seconds=age_s),
            )
        )
        session.flush()
        session.add_all(
            Trial(
                id=new_id(),
                study_id=study_id,
                kind="train",
                number=number,
                state="queued",
                seed=trial_seed(document.seed, number),
            )
            for number in range(n_trials)
        )
    return study_id


def claim_request(worker: str = "worker", slot: int = 0, **fields: Any) -> LeaseRequest:
    """A claim with a request id of its own."""
    return LeaseRequest.model_validate(
        {"worker": worker, "slot": slot, "request_id": new_id(), **fields}
    )


def result_request(value: float = 0.5, **fields: Any) -> ResultRequest:
    """A completed trial: ten rows per class, of which the first class loses two to the second."""
    return ResultRequest.model_validate(
        {
            "value": value,
            "best_epoch": 1,
            "metrics": {"macro_f1": value, "accuracy": 28 / 30},
            "per_class": [
                ClassMetrics(label="bill", precision=1.0, recall=0.8, f1=8 / 9, support=10),
                ClassMetrics(label="login", precision=10 / 12, recall=1.0, f1=10 / 11, support=10),
                ClassMetrics(label="refund", precision=1.0, recall=1.0, f1=1.0, support=10),
            ],
            "confusion": ConfusionMatrix(labels=LABELS, matrix=[[8, 2, 0], [0, 10, 0], [0, 0, 10]]),
            "info": {"seconds": 1.5},
            **fields,
        }
    )


def renew_request(*values: float, first_epoch: int = 0, final: float | None = None) -> RenewRequest:
    """A renewal that reports one epoch per value of the objective."""
    return RenewRequest(
        reports=[
            EpochMetrics(epoch=epoch, metrics={"macro_f1": value, "loss": 1.0})
            for epoch, value in enumerate(values, first_epoch)
        ],
        value=final,
    )


def crash_request(code: str = "trainer_crashed") -> FailureRequest:
    return FailureRequest(code=code, detail="killed by SIGKILL", retry=True)
