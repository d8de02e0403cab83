"""Data sets in the store: one row each, and a row per normalised file."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from model.config import SPLITS, Task
from service.errors import NotFoundError
from service.store.tables import Dataset, DatasetFile

INDICES_PREFIX = "indices-"
"""`indices-<study seed>`: which rows of the train file belong to which split."""


def add_dataset(
    session: Session,
    dataset_id: str,
    *,
    name: str | None,
    default_name: str,
    options: dict[str, Any],
    summary: dict[str, Any],
    origin: dict[str, Any] | None = None,
) -> None:
    """Insert the data set with its files; if it is there already, a stated ``name`` renames it, and
    an ``origin`` is where it was read last."""
    present = session.get(Dataset, dataset_id)
    if present is not None:
        present.name = name or present.name
        present.origin = origin or present.origin
        return
    dataset = Dataset(
        id=dataset_id,
        name=name or default_name,
        task=summary["task"],
        options=options,
        summary=summary,
        origin=origin,
        created_at=datetime.now(UTC),
    )
    session.add(dataset)
    session.flush()
    for split, facts in summary["files"].items():
        add_file(session, dataset_id, split, row_count=summary["rows"][split], **facts)


def add_file(
    session: Session, dataset_id: str, name: str, *, sha256: str, bytes: int, row_count: int
) -> None:
    """Record a file of a data set; nothing happens when it is recorded already."""
    if session.get(DatasetFile, (dataset_id, name)) is None:
        file = DatasetFile(
            dataset_id=dataset_id, split=name, sha256=sha256, bytes=bytes, row_count=row_count
        )
        session.add(file)
        session.flush()


def get_dataset(session: Session, dataset_id: str) -> Dataset:
    """Raises `NotFoundError` ``unknown_dataset``."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        detail = f"There is no data set {dataset_id}."
        raise NotFoundError(detail, code="unknown_dataset", where=["path", "dataset_id"])
    return dataset


def get_file(session: Session, dataset_id: str, name: str) -> DatasetFile:
    """Raises `NotFoundError` ``unknown_dataset`` or ``unknown_file``."""
    get_dataset(session, dataset_id)
    file = session.get(DatasetFile, (dataset_id, name))
    if file is None:
        detail = f"Data set {dataset_id} has no file {name}."
        raise NotFoundError(detail, code="unknown_file", where=["path", "name"])
    return file


def list_datasets(
    session: Session, *, limit: int, after: tuple[datetime, str] | None
) -> Sequence[Dataset]:
    """Newest first, one more than ``limit`` if there is more; ``after`` is a (created, id)."""
    query = select(Dataset).order_by(Dataset.created_at.desc(), Dataset.id.desc())
    if after is not None:
        query = query.where(tuple_(Dataset.created_at, Dataset.id) < after)
    return session.scalars(query.limit(limit + 1)).all()


def stored_heads(dataset: Dataset) -> dict[str, Task]:
    """What the labels of several columns are, by head and in the heads' order; empty where there
    is one column."""
    return dict(sorted(dataset.summary.get("heads", {}).items()))


def split_files(session: Session, dataset_ids: Iterable[str]) -> dict[str, list[DatasetFile]]:
    """The files of each data set's splits, train first, in one query; without the indices."""
    found: dict[str, list[DatasetFile]] = {dataset_id: [] for dataset_id in dataset_ids}
    query = select(DatasetFile).where(
        DatasetFile.dataset_id.in_(found), DatasetFile.split.in_(SPLITS)
    )
    for file in sorted(session.scalars(query), key=lambda file: SPLITS.index(file.split)):
        found[file.dataset_id].append(file)
    return found
