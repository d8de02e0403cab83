"""What Optuna's web pages read: studies without those that were deleted, and notes of ours."""

import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy

from studies.search.database import read_studies, read_trial_notes

HIDDEN = "bertune:deleted"
"""The attribute of a study that the pages do not show any more."""


class PagesStorage(RDBStorage):
    """Studies that were deleted do not show, even while their rows stay."""

    def get_all_studies(self) -> list[FrozenStudy]:
        with self.engine.begin() as connection:
            rows = read_studies(connection)
        return [
            FrozenStudy(
                study_name=row.name,
                direction=None,
                directions=[StudyDirection[name] for name in row.directions],
                user_attrs=row.user_attrs,
                system_attrs=_PagesAttrs(row.system_attrs, partial(self._notes, row.study_id)),
                study_id=row.study_id,
            )
            for row in rows
            if HIDDEN not in row.system_attrs
        ]

    def _notes(self, study_id: int) -> dict[str, Any]:
        with self.engine.begin() as connection:
            return read_trial_notes(connection, study_id)


class _PagesAttrs(dict[str, Any]):
    """A study's attributes for the pages; its trials' notes are read when they are first asked for.

    Optuna reads every attribute of every study for each answer, also for the list of studies.
    """

    def __init__(self, attrs: dict[str, Any], read_notes: Callable[[], dict[str, Any]]) -> None:
        super().__init__(attrs)
        self._read_notes = read_notes

    @cached_property
    def trial_notes(self) -> dict[str, Any]:
        return self._read_notes()


def note(system_attrs: dict[str, Any], trial_id: int | None) -> dict[str, Any]:
    """The note of a study (trial_id None) or a trial, as the pages want it.

    It takes the place of the pages' own function, which looks through all notes of a study for
    each of its trials: 60 s for a study of 5,000. Notes of ours are one attribute each.
    """
    attrs = system_attrs
    if trial_id is not None and isinstance(system_attrs, _PagesAttrs):
        attrs = system_attrs.trial_notes
    prefix = _prefix(trial_id)
    return {"version": attrs.get(f"{prefix}_ver", 0), "body": attrs.get(text_key(trial_id), "")}


def text_key(trial_id: int | None) -> str:
    """The attribute that holds a note's text."""
    return f"{_prefix(trial_id)}_str:0"


def note_attrs(trial_id: int | None, markdown: str) -> dict[str, Any]:
    """A note as the pages read it: one attribute with the whole text, and a growing version."""
    return {
        text_key(trial_id): markdown,
        f"{_prefix(trial_id)}_ver": time.time_ns() // 1_000_000,
    }


def _prefix(trial_id: int | None) -> str:
    return "dashboard:note" if trial_id is None else f"dashboard:{trial_id}:note"
