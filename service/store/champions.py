"""Contests for champions in the store: which are open, and what stands against what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.completion import best_trial
from service.store.moves import lock_study
from service.store.tables import Artifact, Dataset, Schedule, ScheduleRun, Study, Trial
from studies.states import STUDY_ENDED

PREDICTIONS_ARTIFACT = "predictions.csv"


@dataclass(frozen=True, slots=True)
class PredictionsFile:
    """A place among the artifacts, and the data whose rows were predicted."""

    trial_id: str
    attempt: int
    dataset_id: str
    data_file: str
    """`train` where the split was held out of it."""


@dataclass(frozen=True, slots=True)
class Contender:
    study_id: str
    study_name: str
    number: int
    task: str
    predictions: Mapping[str, PredictionsFile]
    """By split, of those there are."""


@dataclass(frozen=True, slots=True)
class Contest:
    """All that a decision depends on; two that are equal are decided equally."""

    run_id: str
    schedule_id: str
    schedule_name: str
    alpha: float | None
    """None: nobody asks any more."""
    study_id: str
    contender: Contender | None
    without: str
    """Why there is no contender."""
    champion: Contender | None


def pending_runs(session: Session) -> list[str]:
    """Runs whose study has ended, or is gone, and that are not decided; the earliest fire first."""
    query = (
        select(ScheduleRun.id)
        .join(Study, Study.id == ScheduleRun.study_id)
        .where(ScheduleRun.verdict == "pending")
        .where(Study.state.in_(STUDY_ENDED) | Study.deleted_at.is_not(None))
        .order_by(ScheduleRun.fire_time)
    )
    return list(session.scalars(query))


def contest_of(session: Session, run_id: str) -> Contest | None:
    """The contest as it stands; None when it is decided, or its study was extended and is open."""
    run = session.get_one(ScheduleRun, run_id)
    if run.verdict != "pending" or run.study_id is None:
        return None
    schedule = session.get_one(Schedule, run.schedule_id)
    study = session.get_one(Study, run.study_id)
    if study.state not in STUDY_ENDED and study.deleted_at is None:
        return None
    without = _disqualification(study)
    best = None if without else best_trial(session, study)
    return Contest(
        run_id=run.id,
        schedule_id=schedule.id,
        schedule_name=schedule.name,
        alpha=_alpha(schedule),
        study_id=study.id,
        contender=None if best is None else _contender(session, study, best),
        without=without or "No trial completed.",
        champion=_champion(session, schedule),
    )


def lock_contest(session: Session, seen: Contest) -> tuple[Schedule, ScheduleRun] | None:
    """What a decision is written to, locked, if the contest still is as it was ``seen``."""
    schedule = session.scalars(
        select(Schedule)
        .where(Schedule.id == seen.schedule_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()
    lock_study(session, seen.study_id)  # so that it is not deleted or extended meanwhile
    run = session.get_one(ScheduleRun, seen.run_id, populate_existing=True)
    return (schedule, run) if contest_of(session, seen.run_id) == seen else None


def _disqualification(study: Study) -> str:
    if study.deleted_at is not None:
        return "The study was deleted."
    if study.state != "completed":
        why = f" {study.error_detail}" if study.error_detail else ""
        return f"The study has {study.state}.{why}" if why else f"The study was {study.state}."
    if study.error_code is not None:
        return f"The study has no test score: {study.error_detail}"
    return ""


def _alpha(schedule: Schedule) -> float | None:
    rule: dict[str, Any] | None = schedule.spec.get("champion")
    return None if rule is None or schedule.deleted_at is not None else float(rule["alpha"])


def _champion(session: Session, schedule: Schedule) -> Contender | None:
    if schedule.champion_study_id is None:
        return None
    study = session.get_one(Study, schedule.champion_study_id)
    query = select(Trial).where(
        Trial.study_id == study.id, Trial.number == schedule.champion_number
    )
    return _contender(session, study, session.scalars(query).one())


def _contender(session: Session, study: Study, trial: Trial) -> Contender:
    evaluation = session.scalars(
        select(Trial).where(Trial.evaluates_id == trial.id, Trial.state == "completed")
    ).first()
    found = {"validation": _file(session, study, trial, "validation")}
    if evaluation is not None:
        found["test"] = _file(session, study, evaluation, "test")
    return Contender(
        study_id=study.id,
        study_name=study.name,
        number=trial.number or 0,
        task=study.task,
        predictions={split: file for split, file in found.items() if file is not None},
    )


def _file(session: Session, study: Study, trial: Trial, split: str) -> PredictionsFile | None:
    if session.get(Artifact, (trial.id, trial.attempt, PREDICTIONS_ARTIFACT)) is None:
        return None
    given = session.get_one(Dataset, study.dataset_id).summary["files"]
    data_file = split if split in given else "train"
    return PredictionsFile(trial.id, trial.attempt, study.dataset_id, data_file)
