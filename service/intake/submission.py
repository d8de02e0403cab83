"""Submitting a study: every check first, then all of its rows in one transaction."""

import json
import logging
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from model.config import MULTI_TASK, TASKS, DataOptions, Task
from model.errors import InputError
from model.labels.readers import heads_of
from model.text_columns import only_one_text
from service.context import ServerContext
from service.errors import ConflictError
from service.intake.held_out import SplitFile, needs_indices, write_indices
from service.intake.models import CatalogueEntry
from service.intake.token_sample import sample_unknown_share
from service.store.database import Database
from service.store.datasets import add_file, stored_heads
from service.store.studies import NewStudy, find_by_key, insert_study
from service.store.tables import Dataset
from studies.model_limits import check_model_limits
from studies.resolution import ResolvedStudy, resolve
from studies.space import grid_values
from studies.spec import StudySpec

logger = logging.getLogger(__name__)

MAX_LABEL_KEY_CHARS = 100
MAX_LABEL_VALUE_CHARS = 300


@dataclass(frozen=True, slots=True)
class CheckedStudy:
    """A spec that passed every check, and what the checks found."""

    spec: StudySpec
    dataset: Dataset
    model: CatalogueEntry
    resolved: ResolvedStudy


def check(context: ServerContext, spec: StudySpec) -> CheckedStudy:
    """Check everything that can be known before a trial runs; nothing is stored.

    Raises `InputError` whose ``where`` is the path inside the spec.
    """
    _check_labels(spec.labels)
    dataset = None
    if "\0" not in spec.dataset:  # PostgreSQL refuses to look for one
        with context.database.reading() as session:
            dataset = session.get(Dataset, spec.dataset)
    if dataset is None:
        detail = f"There is no data set {spec.dataset!r}; upload it with POST /v1/datasets first."
        raise InputError("unknown_dataset", detail, ("dataset",))
    model = context.models.find(spec.model)
    resolved = resolve(
        spec,
        task=cast(Task, dataset.task),
        heads=stored_heads(dataset),
        max_positions=model.facts["max_positions"],
    )
    check_model_limits(resolved, model_type=model.facts["model_type"], layers=model.facts["layers"])
    if dataset.summary["columns"]["text_b"] is None:
        _check_one_text(resolved)
    return CheckedStudy(spec, dataset, model, resolved)


def _check_one_text(resolved: ResolvedStudy) -> None:
    """Refuse to encode apart what is one text."""
    if resolved.training.get("columns") == "apart":
        raise only_one_text(("training", "columns"))
    searched = resolved.search_space.get("columns")
    if searched is not None and "apart" in (grid_values(searched) or ()):
        raise only_one_text(("search_space", "columns"))


def check_before_data(context: ServerContext, spec: StudySpec, options: DataOptions) -> None:
    """Check what can be known while the data are yet to be read with these options; raises as
    `check` does."""
    _check_labels(spec.labels)
    positions = context.models.find(spec.model).facts["max_positions"]
    refusals: list[InputError] = []
    heads = heads_of(options)
    # The columns will tell the task: as long as they are unknown, any that fits will do.
    tasks = (MULTI_TASK,) if heads else (spec.task,) if spec.task else TASKS
    for task in tasks:
        try:
            resolve(spec, task=task, max_positions=positions, heads=heads)
        except InputError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]


def _check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        if not key or len(key) > MAX_LABEL_KEY_CHARS or ":" in key or "\0" in key:
            detail = f"A label's key has 1 to {MAX_LABEL_KEY_CHARS} characters and no colon."
            raise InputError("invalid_value", detail, ("labels", key[:MAX_LABEL_KEY_CHARS]))
        if len(value) > MAX_LABEL_VALUE_CHARS or "\0" in value:
            detail = f"A label's value has at most {MAX_LABEL_VALUE_CHARS} characters."
            raise InputError("invalid_value", detail, ("labels", key))


@dataclass(frozen=True, slots=True)
class PreparedStudy:
    """A checked study and the file of its held-out rows: all that stands before its rows."""

    new: NewStudy
    indices: SplitFile | None


def prepare(
    context: ServerContext, spec: StudySpec, idempotency_key: str | None = None
) -> PreparedStudy:
    """Check ``spec`` and write its held-out rows; may take a moment on large data. Raises as
    `check` does."""
    checked = check(context, spec)
    unknown = sample_unknown_share(context.folders, checked.dataset, checked.model)
    new = NewStudy(
        spec=spec,
        dataset_id=checked.dataset.id,
        task=checked.resolved.task,
        metric=checked.resolved.metric,
        direction=checked.resolved.direction,
        model_facts={**checked.model.facts, "unknown_share": unknown},
        idempotency_key=idempotency_key,
    )
    indices = None
    if needs_indices(checked.dataset):
        indices = write_indices(context.folders, checked.dataset, spec.seed)
    return PreparedStudy(new, indices)


def insert_prepared(session: Session, prepared: PreparedStudy) -> str:
    """Insert the study with all of its trials, and return its id."""
    if prepared.indices is not None:
        add_file(session, prepared.new.dataset_id, **_columns(prepared.indices))
    return insert_study(session, prepared.new).id


def submit(context: ServerContext, spec: StudySpec, idempotency_key: str | None = None) -> str:
    """Store the study and return its id; its trials are claimable when this returns.

    With an Idempotency-Key that was used before, the study of that time is returned. Raises
    `InputError`, or `ConflictError`: ``idempotency_conflict`` when it was another study then,
    ``study_deleted`` when that was deleted since.
    """
    if idempotency_key is not None:
        known = _submitted_before(context.database, idempotency_key, spec)
        if known is not None:
            return known
    study_id = _store(context.database, prepare(context, spec, idempotency_key))
    logger.info(
        "study %s: %d trials queued on data %s", study_id, spec.budget.n_trials, spec.dataset
    )
    context.waker.wake()
    return study_id


def _canonical(spec: StudySpec) -> str:
    """Equal for bodies that mean the same: order of fields and stated defaults do not matter."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True)


def _submitted_before(database: Database, key: str, spec: StudySpec) -> str | None:
    with database.reading() as session:
        study = find_by_key(session, key)
    if study is None:
        return None
    # Read anew: a version whose spec had fewer fields may have stored it.
    if _canonical(StudySpec.model_validate(study.spec)) != _canonical(spec):
        detail = "This Idempotency-Key came with another study before; take a fresh key."
        raise ConflictError(
            detail, code="idempotency_conflict", where=["header", "idempotency-key"]
        )
    if study.deleted_at is not None:
        detail = "The study that this Idempotency-Key made was deleted; take a fresh key."
        raise ConflictError(detail, code="study_deleted", where=["header", "idempotency-key"])
    return study.id


def _store(database: Database, prepared: PreparedStudy) -> str:
    try:
        return _insert(database, prepared)
    except IntegrityError:
        # The same key, or the same indices, may have been committed since we looked: the first
        # is the answer, the second is there now.
        new = prepared.new
        if new.idempotency_key is not None:
            known = _submitted_before(database, new.idempotency_key, new.spec)
            if known is not None:
                return known
        return _insert(database, prepared)


def _insert(database: Database, prepared: PreparedStudy) -> str:
    with database.transaction() as session:
        return insert_prepared(session, prepared)


def _columns(indices: SplitFile) -> dict[str, Any]:
    return {
        "name": indices.name,
        "sha256": indices.sha256,
        "bytes": indices.bytes,
        "row_count": indices.rows,
    }
