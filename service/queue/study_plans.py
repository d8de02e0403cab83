"""What the dispatcher needs to know of a study and what never changes: read once, kept."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import select

from service.errors import NotFoundError
from service.store.database import Database
from service.store.datasets import INDICES_PREFIX, stored_heads
from service.store.tables import Dataset, DatasetFile, Study
from studies.resolution import ResolvedStudy, resolve
from studies.search.study_key import StudyKey
from studies.space import highest
from studies.spec import StudySpec

KEPT_PLANS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A file of a data set, as the dataset routes serve it under ``name``."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """A study as submitted, with every default filled in."""

    study_id: str
    name: str
    key: StudyKey
    resolved: ResolvedStudy
    model_facts: dict[str, Any]
    dataset_id: str
    labels: tuple[str, ...]
    files: tuple[FileFacts, ...]
    """The splits that lie in files of their own."""
    indices: FileFacts | None
    """Which rows of the train file belong to which split; None when nothing was held out."""


class StudyPlans:
    """Plans by study id, the least recently used ones forgotten."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.of = lru_cache(KEPT_PLANS)(self._read)

    def _read(self, study_id: str) -> StudyPlan:
        with self._database.reading() as session:
            study = session.get(Study, study_id)
            if study is None:
                raise NotFoundError(f"There is no study {study_id}.", code="unknown_study")
            dataset = session.get_one(Dataset, study.dataset_id)
            files = session.scalars(
                select(DatasetFile).where(DatasetFile.dataset_id == dataset.id)
            ).all()
            return _plan(study, dataset, files)


def optuna_name(study_id: str, name: str) -> str:
    """A study's name in Optuna, where names must differ."""
    return f"{name} [{study_id}]"


def _plan(study: Study, dataset: Dataset, files: Any) -> StudyPlan:
    spec = StudySpec.model_validate(study.spec)
    max_positions = int(study.model_facts["max_positions"])
    resolved = resolve(
        spec,
        task=study.task,  # type: ignore[arg-type]
        max_positions=max_positions,
        heads=stored_heads(dataset),
    )
    facts = {f.split: FileFacts(name=f.split, sha256=f.sha256, bytes=f.bytes) for f in files}
    return StudyPlan(
        study_id=study.id,
        name=study.name,
        key=StudyKey(
            optuna_name=optuna_name(study.id, study.name),
            direction=resolved.direction,
            metric=resolved.metric,
            spec=spec,
            space=resolved.search_space,
            max_epochs=_max_epochs(resolved),
        ),
        resolved=resolved,
        model_facts=study.model_facts,
        dataset_id=dataset.id,
        labels=tuple(dataset.summary["labels"]),
        files=tuple(f for name, f in facts.items() if not name.startswith(INDICES_PREFIX)),
        indices=facts.get(f"{INDICES_PREFIX}{study.seed}"),
    )


def _max_epochs(resolved: ResolvedStudy) -> int:
    searched = resolved.search_space.get("epochs")
    value = resolved.training["epochs"] if searched is None else highest(searched)
    return int(value) if isinstance(value, int | float) else 1
