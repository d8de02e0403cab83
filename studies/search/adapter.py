"""Optuna behind one door: nothing outside of this package imports it.

Our tables decide; Optuna's storage is the sampler's memory and what its web pages show. So every
call here may be repeated after a crash, nothing depends on Optuna's ids, numbers or study ids, and
equal (study seed, trial number, history) give equal parameters on every database.

Two storages are kept open: one for asking, reporting and telling, one that only reads, for the
pages, so that opening a study of 10,000 trials holds up nobody.
"""

import json
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL, make_url

from model.config import Scalar
from studies import spec as specs
from studies.search.database import (
    connect_args,
    delete_trials,
    holds_newest_id,
    one_server_at_a_time,
    prepare,
    read_note_keys,
    read_study_attr,
    read_unfinished,
    write_study_attrs,
)
from studies.search.drawing import draw_trial
from studies.search.pages import HIDDEN, PagesStorage, note, note_attrs, text_key
from studies.search.pruners import pruner_of
from studies.search.sole_writer import SoleWriterStorage
from studies.search.study_key import OWNER, StudyKey
from studies.space import Params

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

logger = logging.getLogger(__name__)

Outcome = Literal["completed", "pruned", "failed", "out_of_memory", "out_of_time"]

_NO_SAMPLER = RandomSampler()
METRIC_NAMES = "study:metric_names"
BROKEN_CONSTRAINT: dict[Outcome, str] = {
    "out_of_memory": "fits_memory",
    "out_of_time": "fits_time",
}


class NotInOptunaError(LookupError):
    """Optuna's storage holds no such study, or the study has no such trial."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a trial is to run with, and the Optuna trial that stands for it."""

    params: Params
    optuna_trial_id: int
    optuna_number: int


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """An Optuna trial that is not finished. ``owner`` is None when we did not make it."""

    optuna_trial_id: int
    owner: str | None


class OptunaAdapter:
    """Optuna's storage at ``url``, a SQLAlchemy URL of SQLite or PostgreSQL.

    Every method is synchronous and may be called from many threads. ``forbid`` is called first in
    each and raises when the thread stands inside a transaction of ours: on SQLite Optuna would
    wait for that very transaction until its busy timeout.
    """

    def __init__(self, url: str | URL, *, forbid: Callable[[], None] = lambda: None) -> None:
        self._url = make_url(url)
        self._forbid = forbid
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._writes = threading.RLock()
        _quieten_optuna()
        with one_server_at_a_time(self._url):
            self._writer_rdb = _open(self._url, RDBStorage, read_only=False)
            self._reader_rdb = _open(self._url, PagesStorage, read_only=True)
        self._storage: BaseStorage = (
            SoleWriterStorage(self._writer_rdb)  # one server process, by design
            if self._is_sqlite
            else optuna.storages.get_storage(self._writer_rdb)
        )

    def close(self) -> None:
        """Close every connection. The adapter is of no use afterwards."""
        self._writer_rdb.engine.dispose()
        self._reader_rdb.engine.dispose()

    # -- studies ---------------------------------------------------------------------------------

    def create_study(self, key: StudyKey) -> None:
        """Make the study unless it exists; raises `ValueError` if it has another direction."""
        direction = StudyDirection[key.direction.upper()]
        with self._writing():
            try:
                study_id = self._storage.create_new_study([direction], key.optuna_name)
            except optuna.exceptions.DuplicatedStudyError:
                study_id = self._study_id(key.optuna_name)
                if self._storage.get_study_directions(study_id) != [direction]:
                    raise ValueError(f"{key.optuna_name} has another direction") from None
            self._storage.set_study_system_attr(study_id, METRIC_NAMES, [key.metric])
            for name, fact in _facts(key.spec).items():
                self._storage.set_study_user_attr(study_id, name, fact)

    def hide_study(self, optuna_name: str) -> None:
        """Take a study off the pages at once, whatever becomes of its rows."""
        with self._writing(), suppress(NotInOptunaError):
            self._storage.set_study_system_attr(self._study_id(optuna_name), HIDDEN, True)

    def delete_study(self, optuna_name: str) -> bool:
        """Hide a study from the pages and remove its rows; True once they are gone.

        SQLite gives the highest id out again once its row is deleted, and caches of Optuna's and of
        browsers go by id. So there the newest study, or the one with the newest trial, is only
        hidden; call again when others have been made.
        """
        with self._writing():
            try:
                study_id = self._study_id(optuna_name)
            except NotInOptunaError:
                return True
            self._storage.set_study_system_attr(study_id, HIDDEN, True)
            with self._writer_rdb.engine.begin() as connection:
                if self._is_sqlite and holds_newest_id(connection, study_id):
                    return False
                delete_trials(connection, study_id)
            self._storage.delete_study(study_id)
            return True

    # -- trials ----------------------------------------------------------------------------------

    def ask(self, key: StudyKey, number: int, owner: str, fixed: Params) -> Asked:
        """Parameters for trial ``number``: ``fixed`` where given, the sampler's for the rest.

        The Optuna trial is born RUNNING with its owner's name and all of its values, so whatever a
        crash leaves behind can be told apart. An unfinished trial of the same owner is such a
        leftover: it is failed, and drawing again gives the same values.
        Callers hold the study's lock, so that asks see one another on every server.
        Raises `InputError` for a fixed value outside the space, `NotInOptunaError` without study.
        """
        with self._writing():
            study_id = self._study_id(key.optuna_name)
            states = (TrialState.RUNNING, TrialState.WAITING)
            for leftover in self._storage.get_all_trials(study_id, deepcopy=False, states=states):
                if leftover.user_attrs.get(OWNER) == owner:
                    self._storage.set_trial_state_values(leftover._trial_id, TrialState.FAIL)
            drawn, params = draw_trial(key, number, owner, fixed, self._storage)
            trial_id = self._storage.create_new_trial(study_id, drawn)
            return Asked(params, trial_id, self._storage.get_trial_number_from_id(trial_id))

    def report(self, key: StudyKey, optuna_trial_id: int, values: Mapping[int, float]) -> bool:
        """Store the objective after epochs (from 0); whether the study's pruner would stop the
        trial after what it has reported so far.

        The first value of a step stays, as in Optuna; values that are not finite and reports of a
        finished trial (late ones) are left out.
        """
        with self._writing():  # successive halving writes its rungs while it decides
            study = self._study(key)
            trial = self._trial(study._study_id, optuna_trial_id)
            is_over = trial.state.is_finished()
            for step, value in sorted(values.items()):
                if step in trial.intermediate_values:
                    continue
                if is_over or not math.isfinite(value):
                    logger.info(
                        "not reported to Optuna: %s of step %d of trial %d (%s) of %s",
                        value,
                        step,
                        optuna_trial_id,
                        trial.state.name,
                        key.optuna_name,
                    )
                    continue
                self._storage.set_trial_intermediate_value(optuna_trial_id, step, value)
                trial.intermediate_values[step] = value
            return not is_over and study.pruner.prune(study, trial)

    def tell(
        self, key: StudyKey, optuna_trial_id: int, outcome: Outcome, value: float | None
    ) -> None:
        """Finish a trial; one that is finished already is left as it is.

        A completed trial needs a ``value``; one that is not finite counts as failed, since Optuna
        would take an infinity for the best value. The sampler never learns from a failed trial, so
        one out of memory or time is told as a pruned trial that breaks a constraint: TPE ranks
        those last, whatever they had reported, and steers away.
        """
        if outcome == "completed" and value is None:
            raise ValueError("a completed trial needs a value")
        with self._writing():
            study = self._study(key)
            trial = self._trial(study._study_id, optuna_trial_id)
            if trial.state.is_finished():
                return
            try:  # between these lines and Optuna's own, another server may tell it
                self._finish(study, trial, outcome, value)
            except optuna.exceptions.UpdateFinishedTrialError:
                logger.info("another server told trial %d first", optuna_trial_id)

    def running(self, key: StudyKey) -> list[RunningTrial]:
        """Optuna trials of the study that are not finished; none when there is no such study.

        Holds nobody up and keeps nothing in memory, so it may be asked of every study there is.
        """
        self._forbid()
        with self._reader_rdb.engine.begin() as connection:
            rows = read_unfinished(connection, key.optuna_name, OWNER)
        return [
            RunningTrial(trial_id, None if owner is None else json.loads(owner))
            for trial_id, owner in rows
        ]

    # -- the pages -------------------------------------------------------------------------------

    def set_note(self, key: StudyKey, markdown: str) -> None:
        """Replace the note on the study's page."""
        self._set_study_attrs(key, note_attrs(None, markdown))

    def set_trial_note(self, key: StudyKey, optuna_trial_id: int, markdown: str) -> None:
        """Replace the note on a trial's page; the trial may be finished."""
        with self._writing():
            self._trial(self._study_id(key.optuna_name), optuna_trial_id)
        self._set_study_attrs(key, note_attrs(optuna_trial_id, markdown))

    def note(self, key: StudyKey) -> str | None:
        """The note on the study's page, None when it has none."""
        self._forbid()
        with self._reader_rdb.engine.begin() as connection:
            found = read_study_attr(connection, key.optuna_name, text_key(None))
        return None if found is None else str(found)

    def noted_trials(self, key: StudyKey) -> set[int]:
        """Optuna's ids of the trials that have a note; none when there is no such study."""
        self._forbid()
        with self._reader_rdb.engine.begin() as connection:
            keys = read_note_keys(connection, key.optuna_name)
        return {int(name.split(":")[1]) for name in keys}

    def set_figure(self, key: StudyKey, figure_id: str, figure: dict[str, Any]) -> None:
        """Show a Plotly figure (``{"data": [...], "layout": {...}}``) on the study's page.

        ``figure_id`` is letters, digits and hyphens; a figure of the same id is replaced.
        """
        encoded = json.dumps(figure, separators=(",", ":"), allow_nan=False)
        self._set_study_attrs(key, {f"dashboard:plot_data:{figure_id}:0": encoded})

    def wsgi_app(self) -> "WSGIApplication":
        """Optuna's web pages over the reading storage, whose connections refuse every write."""
        import optuna_dashboard  # a second or more, which only a server should pay

        self._forbid()
        optuna_dashboard._note.get_note_from_system_attrs = note
        storage = optuna.storages.get_storage(self._reader_rdb)
        app: WSGIApplication = optuna_dashboard.wsgi(storage)
        return app

    def check_storage(self) -> None:
        """Return when the pages' storage answers; raises the database's own error."""
        with self._reader_rdb.engine.connect():
            pass  # a connection is tried before it is handed out

    # -- inside ----------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises the database's own errors, which Optuna wraps in one that says nothing."""
        self._forbid()
        try:
            with self._writes if self._is_sqlite else nullcontext():
                yield
        except optuna.exceptions.StorageInternalError as error:
            raise error.__cause__ or error from None

    def _study_id(self, optuna_name: str) -> int:
        try:
            return self._storage.get_study_id_from_name(optuna_name)
        except KeyError:
            raise NotInOptunaError(f"Optuna has no study {optuna_name!r}") from None

    def _study(self, key: StudyKey) -> Study:
        """The study for its pruner, and to tell a trial: nothing is drawn from it."""
        try:
            return optuna.load_study(
                study_name=key.optuna_name,
                storage=self._storage,
                sampler=_NO_SAMPLER,
                pruner=pruner_of(key),
            )
        except KeyError:
            raise NotInOptunaError(f"Optuna has no study {key.optuna_name!r}") from None

    def _trial(self, study_id: int, optuna_trial_id: int) -> FrozenTrial:
        """A trial of this very study: an id may have belonged to a study deleted since."""
        try:
            trial = self._storage.get_trial(optuna_trial_id)
            found = self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        except KeyError:
            found = None
        if found != optuna_trial_id:
            raise NotInOptunaError(f"Optuna's study {study_id} has no trial {optuna_trial_id}")
        return trial

    def _finish(
        self, study: Study, trial: FrozenTrial, outcome: Outcome, value: float | None
    ) -> None:
        if trial.state is TrialState.WAITING:  # nobody ran it: not one of ours
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        elif outcome == "completed" and value is not None and math.isfinite(value):
            study.tell(trial.number, float(value), state=TrialState.COMPLETE, skip_if_finished=True)
        elif outcome == "pruned":
            study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
        elif outcome in BROKEN_CONSTRAINT:
            Trial(study, trial._trial_id).set_constraint(BROKEN_CONSTRAINT[outcome], 1.0)
            study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _set_study_attrs(self, key: StudyKey, attrs: dict[str, Any]) -> None:
        with self._writing():
            study_id = self._study_id(key.optuna_name)
            with self._writer_rdb.engine.begin() as connection:
                write_study_attrs(connection, study_id, attrs)


def _quieten_optuna() -> None:
    """Optuna's log lines go where ours go, warnings and errors only."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _open(url: URL, make: type[RDBStorage], *, read_only: bool) -> RDBStorage:
    # Optuna formats the address as a template, so braces in a password or path are doubled.
    address = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    arguments = {"connect_args": connect_args(url, read_only=read_only), "pool_pre_ping": True}
    storage = make(address, arguments)
    prepare(storage.engine, read_only=read_only)
    return storage


def _facts(spec: specs.StudySpec) -> dict[str, Scalar]:
    """What the study's page lists beside its figures."""
    return {
        "dataset": spec.dataset,
        "model": spec.model,
        "sampler": spec.sampler.name,
        "pruner": spec.pruner.name,
        "seed": spec.seed,
    }
