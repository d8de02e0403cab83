"""Brings what a lease needs onto this machine: rows of its splits, and its model's folder."""

import logging
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from service.worker.cache_entries import Holds
from service.worker.files import (
    BadDownloadError,
    Download,
    FileCache,
    Workspace,
    fetch_checked,
)
from service.worker.pipe import SplitFile
from studies.wire.leases import Lease, LeaseModel, RemoteFile

log = logging.getLogger(__name__)

MODEL_ZIP = "model.zip"
_LOOK_S = 0.2
_HUB_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")


class UnavailableError(RuntimeError):
    """Something the lease names cannot be had here now; another machine may have it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class LeaseFiles:
    """Everything a trainer reads."""

    splits: dict[Literal["train", "validation", "test"], SplitFile]
    """Train and validation of a training lease, test of an evaluation."""
    model: str
    """`scratch:<size>`, or the path of a model folder."""


def fetch_files(
    lease: Lease,
    cache: FileCache,
    download: Download,
    workspace: Workspace,
    *,
    until: threading.Event,
) -> LeaseFiles:
    """Fetch what is not here yet.

    Stops soon after ``until`` is set, which is then the caller's to notice: what comes back is
    not complete. Raises `UnavailableError`, `OSError` and whatever ``download`` raises.
    """
    try:
        return LeaseFiles(
            splits=_splits(lease, cache, download, workspace, until),
            model=_model(lease.model, cache, download, workspace, until),
        )
    except (BadDownloadError, zipfile.BadZipFile) as error:
        raise UnavailableError("bad_download", str(error)) from error


def _splits(
    lease: Lease,
    cache: FileCache,
    download: Download,
    workspace: Workspace,
    until: threading.Event,
) -> dict[Literal["train", "validation", "test"], SplitFile]:
    """A split with a file of its own takes all its rows; any other is part of the train file."""

    def fetch(remote: RemoteFile) -> str:
        return str(cache.file(remote, download, holds=workspace.holds, until=until))

    files = lease.dataset.files
    indices = lease.dataset.indices
    rows = None if indices is None else fetch(indices)
    splits: dict[Literal["train", "validation", "test"], SplitFile] = {}
    for split in _wanted(lease):
        shared = split == "train" or split not in files
        if shared and split != "train" and rows is None:
            detail = f"The lease names no {split} file and no rows of the train file for it."
            raise UnavailableError("missing_split", detail)
        source = fetch(files["train" if shared else split])
        splits[split] = SplitFile(source, split, rows if shared else None)
    return splits


def _wanted(lease: Lease) -> tuple[Literal["train", "validation", "test"], ...]:
    return ("train", "validation") if lease.kind == "train" else (lease.split,)


def _model(
    model: LeaseModel,
    cache: FileCache,
    download: Download,
    workspace: Workspace,
    until: threading.Event,
) -> str:
    if model.kind == "scratch":
        return model.name
    if model.kind == "hub":
        return _hub_snapshot(model, until)
    if model.kind == "local":
        return str(cache.model(model.files, download, holds=workspace.holds, until=until))
    archive = workspace.folder / MODEL_ZIP
    fetch_checked(model.files[0], download, archive)
    folder = workspace.folder / "trained-model"
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    archive.unlink()
    return str(folder)


def _hub_snapshot(model: LeaseModel, until: threading.Event) -> str:
    """The folder of a hub model in the machine's own hub cache, at the frozen revision."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    log.info("model %s at %s: looking in the hub cache, else fetching", model.name, model.revision)

    def fetch() -> str:
        return snapshot_download(
            model.name,
            revision=model.revision,
            allow_patterns=list(_HUB_PATTERNS),
            ignore_patterns=["*/*"],  # exports for other frameworks
        )

    try:
        folder = _while_wanted(fetch, until)
    except Exception as error:  # the hub's client raises errors of several libraries
        detail = f"The hub model {model.name} at {model.revision} cannot be fetched: {error}"
        raise UnavailableError("model_unavailable", detail[:2000]) from error
    if not any(Path(folder).glob("*.safetensors")):
        # Without the network the hub's client answers with what it has, complete or not.
        detail = f"The hub model {model.name} at {model.revision} has no safetensors weights here."
        raise UnavailableError("model_unavailable", detail)
    return folder


def _while_wanted(fetch: Callable[[], str], until: threading.Event) -> str:
    """Run what cannot be interrupted in a thread, and leave it alone once ``until`` is set."""
    done: Future[str] = Future()

    def run() -> None:
        try:
            done.set_result(fetch())
        except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
            done.set_exception(error)

    threading.Thread(target=run, name="hub", daemon=True).start()
    while not until.is_set():
        try:
            return done.result(timeout=_LOOK_S)
        except TimeoutError:
            if done.done():
                raise
    raise UnavailableError("given_up", "the lease ended while the model was being fetched")


def drop_damaged(lease: Lease, cache: FileCache, holds: Holds) -> list[str]:
    """Remove cached copies of the lease's files that were damaged; their names."""
    dataset = lease.dataset
    indices = () if dataset.indices is None else (dataset.indices,)
    local = lease.model.files if lease.model.kind == "local" else ()
    return cache.drop_damaged((*dataset.files.values(), *indices), local, holds)


def file_sizes(lease: Lease) -> dict[str, int]:
    """The bytes of every file that the lease names, by its address."""
    dataset = lease.dataset
    files = [*dataset.files.values(), *lease.model.files]
    if dataset.indices is not None:
        files.append(dataset.indices)
    sizes = {file.url: file.bytes for file in files}
    if lease.resume is not None:
        sizes[lease.resume.url] = lease.resume.bytes
    return sizes


def zip_folder(folder: Path, target: Path) -> None:
    """Pack a model folder, its files at the archive's root; stored, since weights do not shrink."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))


def lease_config(lease: Lease, files: LeaseFiles) -> dict[str, Any]:
    """The lease's configuration with the model's place on this machine."""
    return {**lease.config, "model": files.model}


def dataset_key(lease: Lease) -> str:
    """Equal keys mean equal train and validation rows."""
    indices = lease.dataset.indices
    return f"{lease.dataset.id}:{'' if indices is None else indices.sha256}"
