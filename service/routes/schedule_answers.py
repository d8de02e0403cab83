"""Schedules and their runs as the API shows them, for one or a page of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import cast

from sqlalchemy.orm import Session

from service.schedules.fire_times import UPCOMING, fires_after
from service.store.schedules import last_runs
from service.store.tables import Schedule
from service.store.tables import ScheduleRun as StoredRun
from studies.wire.schedules import (
    Champion,
    ChampionDecision,
    Outcome,
    ScheduleAnswer,
    ScheduleRun,
    ScheduleSpec,
    Trigger,
)

PENDING = ChampionDecision(verdict="pending", reason="The study has not ended yet.")


def answer_schedules(session: Session, schedules: Sequence[Schedule]) -> list[ScheduleAnswer]:
    """The answers of ``schedules``, in their order, in one query."""
    runs = last_runs(session, [schedule.id for schedule in schedules])
    return [_answer(schedule, runs.get(schedule.id)) for schedule in schedules]


def answer_run(run: StoredRun) -> ScheduleRun:
    decision = None if run.decision is None else ChampionDecision.model_validate(run.decision)
    return ScheduleRun(
        fire_time=run.fire_time,
        outcome=cast(Outcome, run.outcome),
        trigger=cast(Trigger, run.trigger),
        fires=run.fires,
        study_id=run.study_id,
        dataset_id=run.dataset_id,
        reason=run.reason,
        detail=run.detail,
        champion=PENDING if run.verdict == "pending" else decision,
        created_at=run.created_at,
    )


def _answer(schedule: Schedule, last: StoredRun | None) -> ScheduleAnswer:
    spec = ScheduleSpec.model_validate(schedule.spec)
    fires = _upcoming(spec, schedule.next_fire_at)
    return ScheduleAnswer(
        id=schedule.id,
        spec=spec,
        enabled=schedule.enabled,
        next_fire_time=fires[0] if fires else None,
        upcoming=fires,
        last_run=None if last is None else answer_run(last),
        champion=_champion(schedule),
        created_at=schedule.created_at,
        updated_at=schedule.updated_at,
    )


def _upcoming(spec: ScheduleSpec, next_fire_at: float | None) -> list[datetime]:
    if next_fire_at is None:
        return []
    first = datetime.fromtimestamp(next_fire_at, UTC)
    return list(islice(chain([first], fires_after(spec, first)), UPCOMING))


def _champion(schedule: Schedule) -> Champion | None:
    study_id, number = schedule.champion_study_id, schedule.champion_number
    if study_id is None or number is None or schedule.champion_since is None:
        return None
    return Champion(study_id=study_id, number=number, since=schedule.champion_since)
