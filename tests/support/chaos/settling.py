"""Brings a house to rest after faults: what is still wrong then is wrong for good."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import TrialState
from real_parts import until
from sqlalchemy import Select, and_, or_, select

from chaos.audit import optuna_trials
from chaos.house import House
from service.store.database import Database
from service.store.tables import Artifact, Study, Trial
from studies.states import TRIAL_ENDED

OLD_S = 48 * 3600.0


def settle(house: House, database: Database, *study_ids: str) -> None:
    """Stop everything, start the servers anew, and stop them once they mended what faults left.

    What lies on the disk is made to look old first, since servers leave young files alone.
    """
    house.dismiss_workers()
    house.close()
    for folder in (house.home / "artifacts", house.home / "incoming"):
        _age(folder)
    house.open()
    come_to_rest(house, database, *study_ids)


def come_to_rest(house: House, database: Database, *study_ids: str) -> None:
    """Stop everything once the servers, none of which was killed, have done what they put off."""
    house.dismiss_workers()
    until(lambda: _is_settled(database, house.home, study_ids), lambda: str(house.logs("server")))
    house.close()


def _age(folder: Path) -> None:
    """Make everything below ``folder`` two days old."""
    then = time.time() - OLD_S
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def _is_settled(database: Database, home: Path, study_ids: Sequence[str]) -> bool:
    """Whether Optuna knows of every end, every file has its row and its use, and no upload is left
    half-way."""
    with database.reading() as session:
        studies = [session.get_one(Study, study_id) for study_id in study_ids]
        trials = select(Trial.id).where(Trial.study_id.in_(study_ids))
        if session.scalars(trials.where(Trial.told.is_(False))).first() is not None:
            return False
        if session.scalars(_lost_files()).first() is not None:
            return False
        stored = len(session.scalars(select(Artifact.name)).all())
    if any((home / "incoming").glob("*")):
        return False
    files = [path for path in (home / "artifacts").rglob("*") if path.is_file()]
    running = [
        trial
        for study in studies
        for trial in optuna_trials(database, study).values()
        if trial.state is TrialState.RUNNING
    ]
    return not running and len(files) == stored


def _lost_files() -> Select[str]:
    """Checkpoints of ended trials, and what attempts before the last one left beside their log."""
    beaten = and_(Artifact.attempt != Trial.attempt, Artifact.name != "train.log")
    ended = Trial.state.in_(TRIAL_ENDED)
    query = select(Artifact.name).join(Trial, Trial.id == Artifact.trial_id)
    return query.where(ended, or_(beaten, Artifact.name.startswith("checkpoint-")))
