"""A schedule's champion: the best model of a new study takes its place only if it is better on
McNemar's paired test. Every study that was submitted under the rule is decided once, on record.

A step may be cut off, run late, or run on several servers: files are compared first, and one
transaction writes the decision if all that it rests on is still so.
"""

import logging
from typing import Any

from service.context import ServerContext
from service.schedules.paired_test import PairedTest, paired_test
from service.schedules.scored_rows import UnreadablePredictionsError, scored_rows
from service.store.champions import (
    PREDICTIONS_ARTIFACT,
    Contender,
    Contest,
    PredictionsFile,
    contest_of,
    lock_contest,
    pending_runs,
)
from service.store.clock import moment
from service.store.events import append_event
from service.store.schedules import set_champion
from studies.wire.schedules import ChampionDecision

logger = logging.getLogger(__name__)

SPLITS = ("test", "validation")
"""The first of which both have predictions is compared."""
COMPARED_TASK = "single_label"
"""Its rows have one right answer each, which is what the test is about."""


def decide_champions(context: ServerContext) -> int:
    """Decide every contest whose study has ended; returns how many were. One that cannot be
    decided is logged and holds up no other."""
    with context.database.reading() as session:
        pending = pending_runs(session)
    return sum(_guarded(context, run_id) for run_id in pending)


def _guarded(context: ServerContext, run_id: str) -> int:
    try:
        return _decide(context, run_id)
    except Exception:  # the others must go on
        logger.exception("run %s has no decision on its champion", run_id)
        return 0


def _decide(context: ServerContext, run_id: str) -> int:
    with context.database.reading() as session:
        contest = contest_of(session, run_id)
    if contest is None:
        return 0
    decision = decision_on(context, contest)
    with context.database.transaction() as session:
        locked = lock_contest(session, contest)
        if locked is None:
            return 0  # the next step looks anew
        schedule, run = locked
        run.verdict, run.decision = decision.verdict, decision.model_dump(mode="json")
        if contest.contender is not None and decision.verdict in ("first", "promoted"):
            number = contest.contender.number
            set_champion(schedule, contest.study_id, number, moment(session))
        kind = f"schedule.champion_{decision.verdict}"
        append_event(session, kind, study_id=contest.study_id, data=_about(contest, decision))
    logger.info("schedule %s: %s: %s", contest.schedule_name, decision.verdict, decision.reason)
    return 1


def decision_on(context: ServerContext, contest: Contest) -> ChampionDecision:
    """What becomes of a contest; reads the predictions of both sides, and changes nothing."""
    new, old = contest.contender, contest.champion
    if contest.alpha is None:
        return _kept(old, "The schedule has no champion rule any more.")
    if new is None:
        return _kept(old, contest.without)
    if old is None:
        reason = f"The first: trial {new.number} of {new.study_name}."
        return ChampionDecision(verdict="first", reason=reason)
    if {new.task, old.task} != {COMPARED_TASK}:
        return _kept(old, f"Not comparable: the test is for {COMPARED_TASK} studies.")
    split = next((s for s in SPLITS if s in new.predictions and s in old.predictions), None)
    if split is None:
        return _kept(old, "Not comparable: there is no split that both have predictions of.")
    try:
        test = paired_test(
            _answers(context, new.predictions[split]), _answers(context, old.predictions[split])
        )
    except UnreadablePredictionsError as error:
        return _kept(old, f"Not comparable: predictions of {split} cannot be read: {error}")
    if test.rows == 0:
        return _kept(old, f"Not comparable: the two held out no {split} row in common.", split)
    return _judged(old, test, split, contest.alpha)


def _answers(context: ServerContext, file: PredictionsFile) -> dict[bytes, bool]:
    folders = context.folders
    return scored_rows(
        folders.artifact(file.trial_id, file.attempt, PREDICTIONS_ARTIFACT),
        folders.dataset(file.dataset_id) / f"{file.data_file}.parquet",
    )


def _judged(old: Contender, test: PairedTest, split: str, alpha: float) -> ChampionDecision:
    better = test.is_better(alpha)
    reason = (
        f"{'Better' if better else 'Not better'} on {test.rows} {split} rows: right where the "
        f"champion was wrong on {test.only_new_right}, wrong where it was right on "
        f"{test.only_old_right} (p = {test.p_value:.3g}, level {alpha:g})."
    )
    return ChampionDecision(
        verdict="promoted" if better else "kept",
        reason=reason,
        split=split,
        rows=test.rows,
        only_new_right=test.only_new_right,
        only_old_right=test.only_old_right,
        p_value=test.p_value,
        champion_study_id=old.study_id,
        champion_number=old.number,
    )


def _kept(old: Contender | None, reason: str, split: str | None = None) -> ChampionDecision:
    return ChampionDecision(
        verdict="kept",
        reason=reason,
        split=split,
        rows=None if split is None else 0,
        champion_study_id=None if old is None else old.study_id,
        champion_number=None if old is None else old.number,
    )


def _about(contest: Contest, decision: ChampionDecision) -> dict[str, Any]:
    """What an event tells of a decision."""
    return {
        "schedule_id": contest.schedule_id,
        "schedule": contest.schedule_name,
        "number": None if contest.contender is None else contest.contender.number,
        "reason": decision.reason,
        "p_value": decision.p_value,
    }
