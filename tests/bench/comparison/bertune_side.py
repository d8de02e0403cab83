"""Bertune's side: a server, a worker and a study, exactly as `bertune up` runs them.

The server and its worker are started for the plan on an empty home, so that a run's time has
everything in it that a user waits for. Trials are read back from the server's own database.
"""

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comparison.plan import Plan
from comparison.record import StudyRecord, TrialRecord
from comparison.server import admin_key, running_server
from studies.api import Api

POLL_S = 0.25
TRIALS = """
    SELECT trial.number, attempt.info, result.value, trial.started_at, trial.finished_at
    FROM trial
    JOIN attempt ON attempt.trial_id = trial.id AND attempt.attempt = trial.attempt
    JOIN result ON result.trial_id = trial.id
    WHERE trial.study_id = ? AND trial.kind = 'train'
      AND result.split = 'validation' AND result.metric = 'accuracy'
    ORDER BY trial.number
"""


def run(plan: Plan, folder: Path, *, slots: int) -> StudyRecord:
    """Run the plan's trials as one study on one worker.

    On a CPU its slots share the trials, and a study takes what it takes. On a GPU, where trials
    per hour are asked for, each slot gets as many trials as the peer, which has one.
    """
    home, models = folder / "home", folder / "models"
    models.mkdir(parents=True)
    (models / "base").symlink_to(plan.model_folder, target_is_directory=True)
    settings = {"BERTUNE_MODEL_DIRS": str(models)}
    if plan.device == "cpu":
        settings["CUDA_VISIBLE_DEVICES"] = ""
    with running_server(home, folder / "bertune.log", slots=slots, settings=settings) as url:
        with Api(url, admin_key(home)) as client:
            # The peer learns from repeated rows too.
            options = {"duplicates": "keep"}
            dataset = client.upload_dataset(plan.train_file, plan.validation_file, options=options)
            submitted = time.time()
            study = client.submit(study_spec(plan, dataset.id, slots=slots))
            ended = client.wait(study.id, poll_s=POLL_S)
            if ended.trials.completed != plan.copies(slots) * len(plan.case.trials):
                raise RuntimeError(f"{ended.state}: {ended.trials}, {ended.error}")
        return read_record(home / "bertune.db", study.id, submitted)


def study_spec(plan: Plan, dataset: str, *, slots: int) -> dict[str, Any]:
    """The plan as a study: its trials are enqueued, nothing is pruned. Copies of a trial learn at
    a slightly higher rate each, so that none is the same as another."""
    trials = [
        replace(trial, learning_rate=trial.learning_rate * (1 + 1e-3 * copy))
        for copy in range(plan.copies(slots))
        for trial in plan.case.trials
    ]
    return {
        "name": plan.case.name,
        "dataset": dataset,
        "model": "local:base",
        "search_space": {
            "learning_rate": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
            "batch_size": {
                "type": "categorical",
                "choices": sorted({trial.batch_size for trial in trials}),
            },
            "max_length": {
                "type": "int",
                "low": 4,
                "high": max(trial.max_length for trial in trials),
            },
        },
        "training": {"epochs": plan.case.epochs},
        "objective": {"metric": "accuracy"},
        "pruner": "none",
        "budget": {"n_trials": len(trials), "max_parallel": slots},
        "enqueue": [
            {
                "learning_rate": trial.learning_rate,
                "batch_size": trial.batch_size,
                "max_length": trial.max_length,
            }
            for trial in trials
        ],
        "seed": plan.seed,
    }


def read_record(database: Path, study_id: str, submitted: float) -> StudyRecord:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(TRIALS, (study_id,)).fetchall()
    last = max(_seconds(finished) for *_, finished in rows)
    return StudyRecord(
        search_s=last - submitted,
        last_result_at=last,
        trials=tuple(_trial_record(submitted, *row) for row in rows),
        versions=json.loads(rows[0][1])["versions"],
    )


def _trial_record(
    submitted: float, number: int, info: str, accuracy: float, started: str, finished: str
) -> TrialRecord:
    facts = json.loads(info)
    return TrialRecord(
        number=number,
        steps=facts["steps"],
        train_s=facts["train_seconds"] - facts["evaluation_seconds"],
        evaluation_s=facts["evaluation_seconds"],
        trial_s=_seconds(finished) - _seconds(started),
        finished_s=_seconds(finished) - submitted,
        accuracy=accuracy,
    )


def _seconds(stored: str) -> float:
    """Seconds since 1970 of a moment as the database holds it: UTC, without saying so."""
    return datetime.fromisoformat(stored).replace(tzinfo=UTC).timestamp()
