"""A study as Optuna needs to know it."""

from dataclasses import dataclass

from model.config import Direction
from studies.space import SearchSpace
from studies.spec import StudySpec

OWNER = "bertune_owner"
"""The attribute of an Optuna trial that names our trial."""
NUMBER = "bertune_number"
"""The attribute of an Optuna trial that is our trial's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKey:
    """`optuna_name` is ``<name> [<id>]``."""

    optuna_name: str
    direction: Direction
    metric: str
    spec: StudySpec
    space: SearchSpace
    max_epochs: int
