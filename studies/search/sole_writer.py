"""Optuna's storage for the only process that writes to its database.

Optuna reads every trial that runs again whenever it is asked for anything, since another process
might have written it. Where there is none, as on an SQLite file with its one server, whatever was
read or written once is known: a prune check then reads nothing.
"""

import copy
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from studies.search.trial_rows import finish_trial, insert_trial, store_intermediate_value

States = frozenset[TrialState]

KEPT_STUDIES = 64
"""A study of a thousand trials takes three megabytes; servers run for years."""


class SoleWriterStorage(BaseStorage):
    """``stored`` behind a memory of the studies asked for last and their trials; one thread at a
    time.

    A write goes to the database first and then to memory, so memory never holds what the database
    does not. Of a study whose write failed, maybe after it was done, all is forgotten and read
    again.
    """

    def __init__(self, stored: RDBStorage, *, kept_studies: int = KEPT_STUDIES) -> None:
        self._stored = stored
        self._kept_studies = kept_studies
        self._studies: dict[str, tuple[int, list[StudyDirection]]] = {}
        """By name: the id and the directions."""
        self._trials: dict[int, dict[int, FrozenTrial]] = {}
        """By study, the one asked for last at the end: trials by number, in ascending order."""
        self._places: dict[int, tuple[int, int]] = {}
        """By trial: its study and its number."""
        self._finished: dict[int, dict[States, list[FrozenTrial]]] = {}
        """By study: its trials in some states that trials end in, until another one ends. A pruner
        asks for them after every epoch."""

    # -- studies ---------------------------------------------------------------------------------

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self._stored.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._forget(study_id)
        self._stored.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._stored.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._stored.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name not in self._studies:
            study_id = self._stored.get_study_id_from_name(study_name)
            self._studies[study_name] = study_id, self._stored.get_study_directions(study_id)
        return self._studies[study_name][0]

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._stored.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        for known, directions in self._studies.values():
            if known == study_id:
                return directions
        return self._stored.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._stored.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._stored.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._stored.get_all_studies()

    # -- writing trials --------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        known = self._of_study(study_id)
        with self._forgetting_at_errors(study_id):
            if template_trial is None or _has_values(template_trial):
                trial = self._stored.get_trial(
                    self._stored.create_new_trial(study_id, template_trial)
                )
            else:
                trial = _own_copy(template_trial)
                trial.number = len(known)
                with self._stored.engine.begin() as connection:
                    trial._trial_id = insert_trial(connection, study_id, trial)
        if trial.state.is_finished():
            self._finished.pop(study_id, None)
        self._places[trial._trial_id] = study_id, trial.number
        known[trial.number] = trial
        return trial._trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        with self._changing(trial_id):
            self._stored.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        known = self._known(trial_id)
        if known is None or not state.is_finished() or known.values is not None:
            with self._changing(trial_id):
                return self._stored.set_trial_state_values(trial_id, state, values)
        self.check_trial_is_updatable(trial_id, known.state)
        trial = _own_copy(known)
        trial.state, trial.values, trial.datetime_complete = state, values, datetime.now()
        with self._replacing(trial) as connection:
            finish_trial(connection, trial_id, state, values, trial.datetime_complete)
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        known = self._known(trial_id)
        if known is None:
            self._stored.set_trial_intermediate_value(trial_id, step, intermediate_value)
            return
        self.check_trial_is_updatable(trial_id, known.state)
        trial = _own_copy(known)
        trial.intermediate_values[step] = intermediate_value
        with self._replacing(trial) as connection:
            store_intermediate_value(connection, trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._changing(trial_id):
            self._stored.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._changing(trial_id):
            self._stored.set_trial_system_attr(trial_id, key, value)

    # -- reading trials --------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        known = self._known(trial_id)
        return self._stored.get_trial(trial_id) if known is None else _own_copy(known)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        trial = self._of_study(study_id).get(trial_number)
        if trial is None:
            raise KeyError(f"study {study_id} has no trial {trial_number}")
        return trial._trial_id

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        known = self._of_study(study_id)
        if states is None:
            found = list(known.values())
        else:
            found = self._in_states(
                study_id, known, frozenset(s for s in TrialState if s in states)
            )
        return copy.deepcopy(found) if deepcopy else found

    def _in_states(
        self, study_id: int, known: dict[int, FrozenTrial], states: States
    ) -> list[FrozenTrial]:
        if not all(state.is_finished() for state in states):
            return [trial for trial in known.values() if trial.state in states]
        kept = self._finished.setdefault(study_id, {})
        if states not in kept:
            kept[states] = [trial for trial in known.values() if trial.state in states]
        return list(kept[states])

    def remove_session(self) -> None:
        self._stored.remove_session()

    # -- memory ----------------------------------------------------------------------------------

    def _of_study(self, study_id: int) -> dict[int, FrozenTrial]:
        """Raises `KeyError` when there is no such study."""
        if study_id in self._trials:
            self._trials[study_id] = self._trials.pop(study_id)
        else:
            found = self._stored.get_all_trials(study_id, deepcopy=False)
            found.sort(key=lambda trial: trial.number)
            self._trials[study_id] = {trial.number: trial for trial in found}
            self._places.update((trial._trial_id, (study_id, trial.number)) for trial in found)
            while len(self._trials) > self._kept_studies:
                self._forget(next(iter(self._trials)))
        return self._trials[study_id]

    def _known(self, trial_id: int) -> FrozenTrial | None:
        """A trial in memory; None when it is of a study that was not read."""
        place = self._places.get(trial_id)
        return None if place is None else self._trials[place[0]][place[1]]

    def _forget(self, study_id: int) -> None:
        self._finished.pop(study_id, None)
        for trial in self._trials.pop(study_id, {}).values():
            del self._places[trial._trial_id]
        self._studies = {
            name: study for name, study in self._studies.items() if study[0] != study_id
        }

    @contextmanager
    def _changing(self, trial_id: int) -> Iterator[None]:
        """Read the trial again after what was done to it."""
        place = self._places.get(trial_id)
        if place is None:  # of a study that was not read
            yield
            return
        study_id, number = place
        with self._forgetting_at_errors(study_id):
            yield
            self._finished.pop(study_id, None)
            self._trials[study_id][number] = self._stored.get_trial(trial_id)

    @contextmanager
    def _replacing(self, trial: FrozenTrial) -> Iterator[Connection]:
        """A transaction that makes a known trial what ``trial`` is."""
        study_id, number = self._places[trial._trial_id]
        with self._forgetting_at_errors(study_id):
            with self._stored.engine.begin() as connection:
                yield connection
            if trial.state.is_finished():
                self._finished.pop(study_id, None)
            self._trials[study_id][number] = trial

    @contextmanager
    def _forgetting_at_errors(self, study_id: int) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._forget(study_id)
            raise


def _has_values(trial: FrozenTrial) -> bool:
    """Whether a trial is more than one that begins."""
    return bool(trial.intermediate_values) or trial.state is not TrialState.RUNNING


def _own_copy(trial: FrozenTrial) -> FrozenTrial:
    """Optuna writes into the trial that it was handed, beside the storage."""
    own = copy.copy(trial)
    own.params = dict(trial.params)
    own.distributions = dict(trial.distributions)
    own.user_attrs = dict(trial.user_attrs)
    own.system_attrs = dict(trial.system_attrs)
    own.intermediate_values = dict(trial.intermediate_values)
    return own
