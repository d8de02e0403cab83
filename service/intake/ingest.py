"""From an upload to a data set: read and checked once, published whole, named by its content."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError

from model.config import DataOptions
from model.data import fingerprint, normalise
from model.errors import InputError
from service.folders import Folders, sync
from service.intake.upload import Upload
from service.store.database import Database
from service.store.datasets import add_dataset

logger = logging.getLogger(__name__)

MAX_NAME_CHARS = 300
_OPTION_NAMES = tuple(field.name for field in dataclasses.fields(DataOptions))


def ingest(
    database: Database,
    folders: Folders,
    upload: Upload,
    *,
    check_read: Callable[[], None] | None = None,
) -> str:
    """Normalise and publish the uploaded files and return the data set's id.

    Equal content gives the same data set, whoever else uploads it at the same time. Raises
    `InputError`, also what ``check_read`` raises once the files were read, and then leaves nothing
    behind.
    """
    options = parse_options(upload.texts.get("options"))
    name = _name(upload)
    normalised = upload.folder / "normalised"
    summary = normalise(upload.files, options, normalised)
    if check_read is not None:
        check_read()
    dataset_id = fingerprint(summary, options)
    # The files first: a crash before the row leaves a folder that the next such upload takes over.
    publish_folder(normalised, folders.dataset(dataset_id))
    default_name = PurePosixPath(upload.filenames["train"]).stem[:MAX_NAME_CHARS] or dataset_id
    names = {"name": name, "default_name": default_name}
    facts = {"options": dataclasses.asdict(options), "summary": dataclasses.asdict(summary)}
    _record(database, dataset_id, {**names, **facts, "origin": upload.origin})
    logger.info("data set %s: %s rows", dataset_id, summary.rows)
    return dataset_id


def parse_options(text: str | None) -> DataOptions:
    """Read the form field ``options``. Raises `InputError` ``unknown_option``, ``invalid_value``
    or ``bad_json``."""
    if text is None or not text.strip():
        return DataOptions()
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError("bad_json", f"options is not JSON: {error}.", ("options",)) from error
    if not isinstance(values, dict):
        raise InputError("bad_json", "options must be a JSON object.", ("options",))
    return _checked_options(values)


def _checked_options(values: dict[str, Any]) -> DataOptions:
    for name in values:
        if name not in _OPTION_NAMES:
            known = ", ".join(_OPTION_NAMES)
            detail = f"There is no option {name!r}. Known: {known}."
            raise InputError("unknown_option", detail, ("options", name))
    try:
        return TypeAdapter(DataOptions).validate_python(values)
    except ValidationError as error:
        # Of a value that may have several forms, what was wrong with the one that fits best.
        first = max(error.errors(include_url=False), key=lambda fault: len(fault["loc"]))
        name = str(first["loc"][0])
        detail = f"options.{name}: {first['msg']}; got {values[name]!r}."
        raise InputError("invalid_value", detail, ("options", name)) from error


def _name(upload: Upload) -> str | None:
    name = upload.texts.get("name", "").strip()
    if len(name) > MAX_NAME_CHARS:
        detail = (
            f"A data set's name may have {MAX_NAME_CHARS} characters; this one has {len(name)}."
        )
        raise InputError("invalid_value", detail, ("name",))
    return name or None


def publish_folder(folder: Path, target: Path) -> None:
    """Rename ``folder`` to ``target`` once its files are on the disk; an existing one stays."""
    for file in folder.iterdir():
        sync(file)
    sync(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        # A folder that is there has the same content, since its name says so.
        if not target.is_dir():
            raise
    sync(target.parent)


def _record(database: Database, dataset_id: str, facts: dict[str, Any]) -> None:
    try:
        with database.transaction() as session:
            add_dataset(session, dataset_id, **facts)
    except IntegrityError:
        # On PostgreSQL an equal upload may commit between our look and our insert; then it is
        # there, and adding it again changes nothing.
        with database.transaction() as session:
            add_dataset(session, dataset_id, **facts)
