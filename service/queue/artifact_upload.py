"""Receives an artifact: to disk as it arrives, published by a rename, recorded under the lease."""

import hashlib
from pathlib import Path

from anyio import to_thread
from fastapi import Request
from sqlalchemy.orm import Session

from service.context import ServerContext
from service.errors import LeaseLostError
from service.folders import sync
from service.intake.body import receive_body
from service.queue.file_removal import remove_files
from service.store.artifacts import StoredArtifact, put_artifact
from service.store.identifiers import new_id
from service.store.leases import lock_renewable
from service.store.tables import Trial
from service.store.workers import touch_holder
from studies.wire.leases import UploadAnswer


async def receive_artifact(
    request: Request, context: ServerContext, trial_id: str, attempt: int, name: str
) -> UploadAnswer:
    """Store the body as ``name`` under (trial, attempt), in place of one sent before.

    Raises `LeaseLostError` before the first byte is read and again before it counts,
    `TooLargeError`, `DiskFullError`, `BrokenUploadError`.
    """
    await to_thread.run_sync(_check_lease, context, trial_id, attempt)
    incoming = _Incoming(context.folders.incoming / new_id())
    try:
        await receive_body(request, context.settings, incoming.path.parent, incoming.append)
        await to_thread.run_sync(incoming.append, b"")  # an empty body makes a file, too
        place = StoredArtifact(trial_id, attempt, name)
        return await to_thread.run_sync(_publish, context, incoming, place)
    finally:
        await to_thread.run_sync(incoming.remove)


class _Incoming:
    """A file that grows as its content arrives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def append(self, block: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(block)
        self._digest.update(block)
        self.bytes += len(block)

    def remove(self) -> None:
        """Nothing happens when it has been published."""
        self.path.unlink(missing_ok=True)


def _check_lease(context: ServerContext, trial_id: str, attempt: int) -> None:
    with context.database.transaction() as session:
        _lock_running(session, context, trial_id, attempt)


def _lock_running(session: Session, context: ServerContext, trial_id: str, attempt: int) -> Trial:
    touch_holder(session, trial_id, attempt)
    trial, _ = lock_renewable(session, context.database.now_s(), trial_id, attempt)
    if trial.state != "running":
        raise LeaseLostError(f"Trial {trial_id} is {trial.state}.")
    return trial


def _publish(context: ServerContext, incoming: _Incoming, place: StoredArtifact) -> UploadAnswer:
    """Row and file appear together: the rename is the last thing before the commit."""
    sync(incoming.path)
    with context.database.transaction() as session:
        trial = _lock_running(session, context, place.trial_id, place.attempt)
        replaced = put_artifact(
            session, trial, place.name, sha256=incoming.sha256, size_bytes=incoming.bytes
        )
        target = context.folders.artifact(place.trial_id, place.attempt, place.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        incoming.path.replace(target)
        for folder in (target.parent, *target.parent.parents[:2]):  # attempt, trial, artifacts
            sync(folder)
    remove_files(context.folders, replaced)
    return UploadAnswer(name=place.name, sha256=incoming.sha256, bytes=incoming.bytes)
