"""Writes notes and heatmaps on Optuna's pages, behind the back of whoever ended a trial.

Pages are for looking at: what goes wrong here is logged and changes nothing. What was not written,
since the server died or something failed, the next start of a server makes up for.
"""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from model.config import Scalar
from model.measures import DEFAULT_HEAD, head_names
from service.pages.confusion_figure import confusion_figure
from service.pages.notes import ShownMatrix, failure_note, study_note, trial_note
from service.queue.study_plans import StudyPlan
from service.store.database import Database
from service.store.studies import best_trials, results_of
from service.store.tables import ConfusionCell, Trial
from service.store.trials import StoredMatrix, class_metrics_of, class_score, confusion_of
from studies.search.adapter import OptunaAdapter
from studies.wire.trials import ClassScore

logger = logging.getLogger(__name__)

FIGURE_ID = "confusion-matrix"
GATHER_S = 0.5
"""A worker whose trial ended asks for the next one at once, and is not to share the interpreter
and SQLite's one writer with that trial's page; of many trials the study's page is written once."""


@dataclass(frozen=True, slots=True)
class _Scores:
    """What the pages show of a trial that has a confusion matrix, pruned ones among them."""

    number: int
    value: float
    params: dict[str, Scalar]
    metrics: dict[str, float]
    test_metrics: dict[str, float] | None
    matrices: list[ShownMatrix]
    """The usual one of every head."""
    per_class: list[ClassScore]

    @property
    def version(self) -> tuple[int, bool]:
        """What can change about a study's best: which trial it is, and that its test came in."""
        return self.number, self.test_metrics is not None


class StudyPages:
    """One background thread, so that pages of one study are never written twice at once."""

    def __init__(self, database: Database, optuna: OptunaAdapter) -> None:
        self._database = database
        self._optuna = optuna
        self._shown: dict[str, tuple[int, bool]] = {}
        """By study: the best trial on its page, and whether with its test score."""
        self._lock = threading.Lock()
        self._ended: dict[str, StudyPlan] = {}
        """By trial: those whose pages are due. One job is queued while there are any."""
        self._hurry = threading.Event()
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="study-pages")

    def refresh(self, plan: StudyPlan, trial_id: str) -> None:
        """Write the page of a trial that ended, and its study's, after `GATHER_S`."""
        with self._lock:
            if not self._ended:
                self._thread.submit(self._refresh_ended)
            self._ended[trial_id] = plan

    def catch_up(self, plan: StudyPlan) -> Future[None]:
        """Write what an earlier server left unwritten of a study and its trials, soon."""
        return self._thread.submit(self._catch_up, plan)

    def flush(self) -> None:
        """Write all that was asked for so far, now."""
        self._hurry.set()
        self._thread.submit(self._hurry.clear).result()

    def close(self) -> None:
        """Write the pages of trials that ended here, and no more: catching up may have thousands
        to write, and the next start goes on with it."""
        self._closing.set()
        self._hurry.set()
        self._thread.shutdown(wait=True)

    def _refresh_ended(self) -> None:
        self._hurry.wait(GATHER_S)
        with self._lock:
            ended, self._ended = self._ended, {}
        studies: dict[str, StudyPlan] = {}
        for trial_id, plan in ended.items():
            studies[plan.study_id] = plan
            with _logged(plan):
                self._refresh_trial(plan, trial_id)
        for plan in studies.values():
            with _logged(plan):
                self._refresh_study(plan)

    def _catch_up(self, plan: StudyPlan) -> None:
        if self._closing.is_set():
            return
        with _logged(plan):
            noted = self._optuna.noted_trials(plan.key)
            with self._database.reading() as session:
                has_matrix = exists().where(
                    ConfusionCell.trial_id == Trial.id, ConfusionCell.split == "validation"
                )
                notable = session.execute(
                    select(Trial.id, Trial.optuna_trial_id).where(
                        Trial.study_id == plan.study_id,
                        Trial.optuna_trial_id.is_not(None),
                        or_(
                            Trial.state == "failed",
                            and_(Trial.state.in_(("completed", "pruned")), has_matrix),
                        ),
                    )
                ).all()
            for trial in notable:
                if self._closing.is_set():
                    return
                if trial.optuna_trial_id not in noted:
                    self._refresh_trial(plan, trial.id)
            self._refresh_study(plan)

    def _refresh_trial(self, plan: StudyPlan, trial_id: str) -> None:
        with self._database.reading() as session:
            trial = session.get_one(Trial, trial_id)
            note = _trial_note(session, plan, trial)
        if note is not None and trial.optuna_trial_id is not None:
            self._optuna.set_trial_note(plan.key, trial.optuna_trial_id, note)

    def _refresh_study(self, plan: StudyPlan) -> None:
        """Most ends change nothing on the study's page, and writing it holds up asks on SQLite."""
        with self._database.reading() as session:
            found = best_trials(session, [plan.study_id]).get(plan.study_id)
            best = _scores(session, plan, found) if found else None
        if best is not None and self._shown.get(plan.study_id) != best.version:
            self._write_study(plan, best)
            self._shown[plan.study_id] = best.version

    def _write_study(self, plan: StudyPlan, best: _Scores) -> None:
        note = study_note(
            metric=plan.key.metric,
            best_number=best.number,
            value=best.value,
            params=best.params,
            metrics=best.metrics,
            test_metrics=best.test_metrics,
            matrices=best.matrices,
            per_class=best.per_class,
        )
        if note == self._optuna.note(plan.key):  # an earlier server wrote it
            return
        for shown in best.matrices:
            one = shown.head == DEFAULT_HEAD
            head = "" if one else f" of {shown.head}"
            title = f"Best trial {best.number}: confusion matrix{head} (validation, {shown.unit})"
            figure = confusion_figure(shown.labels, shown.matrix, title=title, unit=shown.unit)
            name = FIGURE_ID if one else f"{FIGURE_ID}-{shown.head}"
            self._optuna.set_figure(plan.key, name, figure)
        # The note last: if it is there, all is there.
        self._optuna.set_note(plan.key, note)


@contextmanager
def _logged(plan: StudyPlan) -> Iterator[None]:
    """What goes wrong inside is logged, and nothing else."""
    try:
        yield
    except Exception:
        logger.exception("the pages of study %s were not written", plan.study_id)


def _trial_note(session: Session, plan: StudyPlan, trial: Trial) -> str | None:
    """None for a trial with nothing to tell, such as an evaluation."""
    if trial.error_code is not None and trial.number is not None:
        return failure_note(
            number=trial.number,
            attempts=trial.attempt,
            code=trial.error_code,
            detail=trial.error_detail or "",
        )
    scores = _scores(session, plan, trial)
    if scores is None:
        return None
    return trial_note(
        number=scores.number,
        metric=plan.key.metric,
        value=scores.value,
        metrics=scores.metrics,
        matrices=scores.matrices,
        per_class=scores.per_class,
    )


def _scores(session: Session, plan: StudyPlan, trial: Trial) -> _Scores | None:
    """None for a trial without a confusion matrix: there is nothing to draw."""
    matrices = [
        _shown(plan, trial, stored)
        for head in head_names(plan.resolved.task, plan.resolved.heads)
        if (stored := confusion_of(session, trial, split="validation", head=head)) is not None
    ]
    if not matrices:
        return None
    results = results_of(session, [trial.id])
    return _Scores(
        number=trial.number or 0,
        value=trial.value or 0.0,
        params=cast(dict[str, Scalar], trial.params or {}),
        metrics=results.get((trial.id, "validation"), {}),
        test_metrics=results.get((trial.id, "test")),
        matrices=matrices,
        per_class=[class_score(row) for row in class_metrics_of(session, trial)],
    )


def _shown(plan: StudyPlan, trial: Trial, stored: StoredMatrix) -> ShownMatrix:
    path = f"/v1/studies/{plan.study_id}/trials/{trial.number or 0}/confusion-matrix?format=svg"
    return ShownMatrix(
        head=stored.head,
        kind=stored.kind,
        unit=stored.unit,
        labels=stored.labels,
        matrix=[[stored.cells.get((t, p), 0) for p in stored.labels] for t in stored.labels],
        image_url=path if stored.head == DEFAULT_HEAD else f"{path}&head={stored.head}",
    )
