"""What the database tells of studies while workers are at them."""

from collections import Counter

from real_parts import until
from sqlalchemy import func, select

from chaos.audit import events_of
from chaos.house import House
from chaos.takeover import has_ended
from service.store.database import Database
from service.store.tables import Attempt, EpochMetric, Event, Study, Trial


def states_of(database: Database, study_id: str) -> Counter[str]:
    """How many trials of the study are in each state."""
    with database.reading() as session:
        return Counter(session.scalars(select(Trial.state).where(Trial.study_id == study_id)))


def state_of(database: Database, study_id: str) -> str:
    with database.reading() as session:
        return session.get_one(Study, study_id).state


def fewest_epochs(database: Database, study_id: str) -> int:
    """Of the trials that run: reported epochs of the one with the fewest."""
    epochs = (
        select(func.coalesce(func.max(EpochMetric.epoch) + 1, 0))
        .select_from(Trial)
        .outerjoin(EpochMetric, EpochMetric.trial_id == Trial.id)
        .where(Trial.study_id == study_id, Trial.state == "running")
        .group_by(Trial.id)
    )
    with database.reading() as session:
        return min(session.scalars(epochs), default=0)


def attempts_of(database: Database, study_id: str) -> list[Attempt]:
    """All attempts at the study's trials, a trial's in their order."""
    query = (
        select(Attempt)
        .join(Trial, Trial.id == Attempt.trial_id)
        .where(Trial.study_id == study_id)
        .order_by(Trial.number, Attempt.attempt)
    )
    with database.reading() as session:
        return list(session.scalars(query))


def history(database: Database, *study_ids: str) -> list[Event]:
    """What happened to these studies, in order."""
    with database.reading() as session:
        events = [event for study_id in study_ids for event in events_of(session, study_id)]
    return sorted(events, key=lambda event: event.id)


def await_end(house: House, database: Database, *study_ids: str) -> None:
    """Return once all of these studies have ended."""
    until(
        lambda: all(has_ended(database, study_id) for study_id in study_ids),
        lambda: str(house.logs("")),
    )
