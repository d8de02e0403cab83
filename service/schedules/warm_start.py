"""Warm start: the best configurations of a schedule's last study are tried first in its next."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from model.config import Scalar
from model.errors import InputError
from service.context import ServerContext
from service.intake.submission import check
from service.store.tables import ScheduleRun, Study, Trial
from studies.spec import StudySpec

Configuration = dict[str, Scalar]


def best_configurations(session: Session, schedule_id: str, k: int) -> list[Configuration]:
    """The ``k`` best completed configurations of the schedule's latest study that has any, best
    first."""
    study = _latest(session, schedule_id)
    if study is None:
        return []
    value = Trial.value.desc() if study.direction == "maximize" else Trial.value.asc()
    query = (
        select(Trial.params)
        .where(Trial.study_id == study.id, Trial.kind == "train", Trial.state == "completed")
        .where(Trial.value.is_not(None))
        .order_by(value, Trial.number)
    )
    found: list[Configuration] = []
    for params in session.scalars(query):
        if params and params not in found:
            found.append(params)
        if len(found) == k:
            break
    return found


def with_previous(
    context: ServerContext, spec: StudySpec, previous: Sequence[Configuration]
) -> tuple[StudySpec, list[str]]:
    """``spec`` with what still fits of the ``previous`` configurations in front of its own, and a
    sentence for each that does not. Raises as `check` does for the study itself."""
    check(context, spec)
    fitting: list[Configuration] = []
    sentences: list[str] = []
    for configuration in previous:
        try:
            check(context, spec.model_copy(update={"enqueue": (configuration,)}))
        except InputError as error:
            sentences.append(f"{configuration} is not tried again: {error.detail}")
        else:
            fitting.append(configuration)
    own = [entry for entry in spec.enqueue if entry not in fitting]
    # Not more than there are trials, of which the study's own come first when room is short.
    room = max(0, spec.budget.n_trials - len(own))
    return spec.model_copy(update={"enqueue": (*fitting[:room], *own)}), sentences


def _latest(session: Session, schedule_id: str) -> Study | None:
    has_result = (
        select(Trial.id)
        .where(Trial.study_id == Study.id, Trial.kind == "train", Trial.state == "completed")
        .exists()
    )
    query = (
        select(Study)
        .join(ScheduleRun, ScheduleRun.study_id == Study.id)
        .where(ScheduleRun.schedule_id == schedule_id, Study.deleted_at.is_(None), has_result)
        .order_by(ScheduleRun.fire_time.desc())
    )
    return session.scalars(query.limit(1)).first()
