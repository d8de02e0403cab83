"""A worker dies with a trial in its hands: how long until another one has it."""

from real_parts import until
from sqlalchemy import select

from chaos.house import House
from chaos.nursery import Child
from service.store.database import Database
from service.store.tables import Study, Trial


def attempt_of(database: Database, study_id: str) -> int:
    """The attempt of a study's first trial that has its parameters by now, else 0."""
    trial = _first_trial(database, study_id)
    return 0 if trial.params is None else trial.attempt


def has_ended(database: Database, study_id: str) -> bool:
    with database.reading() as session:
        return session.get_one(Study, study_id).finished_at is not None


def takeover_s(house: House, database: Database, worker: Child, study_id: str) -> float:
    """Kill the worker that trains the study's first trial; how long after the end of its lease the
    next attempt began, by the database's clock."""
    before = _first_trial(database, study_id)
    house.kill_worker(worker)
    expires_at = _first_trial(database, study_id).lease_expires_at
    until(
        lambda: attempt_of(database, study_id) == before.attempt + 1,
        lambda: str(house.logs("server")),
    )
    after = _first_trial(database, study_id)
    assert expires_at is not None
    assert after.leased_since is not None
    assert (after.seed, after.params) == (before.seed, before.params)
    assert after.worker_id != before.worker_id
    return after.leased_since - expires_at


def _first_trial(database: Database, study_id: str) -> Trial:
    with database.reading() as session:
        query = select(Trial).where(Trial.study_id == study_id, Trial.number == 0)
        return session.scalars(query).one()
