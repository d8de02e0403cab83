"""Data that the server fetches itself: files under the roots it may read, or a hub's data set."""

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from model.config import SPLITS, Split
from model.errors import InputError
from service.context import ServerContext
from service.disk_space import demand_room
from service.intake.hub import fetch_hub_files
from service.intake.ingest import ingest
from service.intake.upload import Upload
from service.store.identifiers import new_id
from studies.wire.sources import DataSource, HubSource, PathSource


def read_source(context: ServerContext, source: DataSource, name: str | None = None) -> str:
    """Read the source as it is now and return the data set's id; equal content gives the same id.

    May take minutes. Raises `InputError` whose ``where`` is the field of the source, and
    `DiskFullError`; nothing is left behind then.
    """
    with _folder(context) as folder:
        origin = None
        if isinstance(source, HubSource):
            fetched = fetch_hub_files(context, source, folder)
            files, origin = fetched.files, fetched.origin
            name = name or source.hub
        else:
            files = allowed_files(source, context.settings.data_dirs)
        before = _marks(files)
        upload = Upload(
            folder,
            files=files,
            filenames={split: path.name for split, path in files.items()},
            texts=_texts(source, name),
            origin=origin,
        )
        _demand_room(context, folder, files)
        return ingest(
            context.database,
            context.folders,
            upload,
            check_read=partial(_check_unchanged, files, before),
        )


def allowed_files(source: PathSource, roots: tuple[Path, ...]) -> dict[Split, Path]:
    """The files that a source names, each a regular file under one of the ``roots`` after every
    link is followed. Raises `InputError` ``path_not_allowed`` or ``no_file``."""
    paths = stated_paths(source)
    return {split: allowed_file(path, split, roots) for split, path in paths.items()}


def stated_paths(source: PathSource) -> dict[Split, str]:
    stated: dict[Split, str | None] = {
        "train": source.train,
        "validation": source.validation,
        "test": source.test,
    }
    return {split: path for split in SPLITS if (path := stated[split]) is not None}


def allowed_file(text: str, split: Split, roots: tuple[Path, ...]) -> Path:
    """The file of one split; raises as `allowed_files` does."""
    stated = Path(text)
    if not roots:
        detail = "The server may read no files; its operator names folders in BERTUNE_DATA_DIRS."
        raise InputError("path_not_allowed", detail, (split,))
    real_roots = [root.resolve() for root in roots]
    # An absolute path stays what it is when it is joined to a root.
    found = [(root / stated).resolve() for root in real_roots]
    inside = [
        path
        for path, root in zip(found, real_roots, strict=True)
        if path.is_relative_to(root) and path != root
    ]
    if not inside:
        named = ", ".join(map(str, roots))
        detail = f"{stated} is not under a folder that the server may read ({named})."
        raise InputError("path_not_allowed", detail, (split,))
    for path in inside:
        if path.exists():
            return _regular(path, split)
    raise InputError("no_file", f"There is no file {stated} on the server.", (split,))


def _regular(path: Path, split: Split) -> Path:
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError("no_file", f"{path} is no file but a folder or device.", (split,))
    if not os.access(path, os.R_OK):
        raise InputError("path_not_allowed", f"The server may not read {path}.", (split,))
    return path


def _marks(files: Mapping[Split, Path]) -> dict[Split, tuple[int, int, int]]:
    """What changes when somebody writes or replaces a file."""
    found = {split: path.stat() for split, path in files.items()}
    return {split: (mark.st_ino, mark.st_size, mark.st_mtime_ns) for split, mark in found.items()}


def _check_unchanged(
    files: Mapping[Split, Path], before: Mapping[Split, tuple[int, int, int]]
) -> None:
    after = _marks(files)
    for split in files:
        if after[split] != before[split]:
            detail = f"{files[split]} was written while it was read; write it elsewhere and rename."
            raise InputError("file_changed", detail, (split,))


def _texts(source: DataSource, name: str | None) -> dict[str, str]:
    texts: dict[str, Any] = {"options": json.dumps(source.options)}
    return texts if name is None else {**texts, "name": name}


def _demand_room(context: ServerContext, folder: Path, files: Mapping[Split, Path]) -> None:
    size_bytes = sum(path.stat().st_size for path in files.values())
    demand_room(folder, size_bytes, keep_free_bytes=context.settings.min_free_bytes)


@contextmanager
def _folder(context: ServerContext) -> Iterator[Path]:
    folder = context.folders.incoming / new_id()
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
