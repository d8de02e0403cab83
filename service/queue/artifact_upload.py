"""Receives an artifact: to disk as it arrives, published by a rename, recorded under the lease."""

import hashlib
from pathlib import Path

from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from service.context import ServerContext
from service.errors import LeaseLostError, TooLargeError
from service.folders import sync
from service.intake.upload import BrokenUploadError
from service.store.artifacts import put_artifact
from service.store.identifiers import new_id
from service.store.leases import lock_renewable
from service.store.workers import touch_holder
from studies.wire.leases import UploadAnswer

BLOCK_BYTES = 1 << 20
"""Chunks of the network are gathered to this size before a thread writes them."""


async def receive_artifact(
    request: Request, context: ServerContext, trial_id: str, attempt: int, name: str
) -> UploadAnswer:
    """Store the body as ``name`` under (trial, attempt), in place of one sent before.

    Raises `LeaseLostError` before the first byte is read and again before it counts,
    `TooLargeError`, `BrokenUploadError`.
    """
    await to_thread.run_sync(_check_lease, context, trial_id, attempt)
    incoming = context.folders.incoming / new_id()
    try:
        sha256, size_bytes = await _to_disk(request, incoming, context.settings.max_upload_bytes)
        answer = UploadAnswer(name=name, sha256=sha256, bytes=size_bytes)
        await to_thread.run_sync(_publish, context, incoming, trial_id, attempt, answer)
    finally:
        await to_thread.run_sync(_remove, incoming)
    return answer


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _check_lease(context: ServerContext, trial_id: str, attempt: int) -> None:
    with context.database.transaction() as session:
        touch_holder(session, trial_id, attempt)
        trial = lock_renewable(session, context.database.now_s(), trial_id, attempt)
        if trial.state != "running":
            raise LeaseLostError(f"Trial {trial_id} is {trial.state}.")


async def _to_disk(request: Request, path: Path, limit: int) -> tuple[str, int]:
    """Write the body to ``path``; returns its sha256 and its size."""
    declared = request.headers.get("content-length", "")
    _check_size(int(declared) if declared.isdecimal() else 0, limit)
    digest, size_bytes, block = hashlib.sha256(), 0, bytearray()
    await to_thread.run_sync(_append, path, b"", digest)
    try:
        async for chunk in request.stream():
            size_bytes += len(chunk)
            _check_size(size_bytes, limit)
            block += chunk
            if len(block) >= BLOCK_BYTES:
                await to_thread.run_sync(_append, path, bytes(block), digest)
                block.clear()
    except ClientDisconnect as error:
        raise BrokenUploadError("The worker went away before the upload was complete.") from error
    await to_thread.run_sync(_append, path, bytes(block), digest)
    await to_thread.run_sync(sync, path)
    return digest.hexdigest(), size_bytes


def _append(path: Path, block: bytes, digest: "hashlib._Hash") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(block)
    digest.update(block)


def _check_size(size_bytes: int, limit: int) -> None:
    if size_bytes > limit:
        raise TooLargeError(f"An artifact may have {limit} bytes (BERTUNE_MAX_UPLOAD_BYTES).")


def _publish(
    context: ServerContext, incoming: Path, trial_id: str, attempt: int, answer: UploadAnswer
) -> None:
    """Row and file appear together: the rename is the last thing before the commit."""
    target = context.folders.artifact(trial_id, attempt, answer.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with context.database.transaction() as session:
        touch_holder(session, trial_id, attempt)
        trial = lock_renewable(session, context.database.now_s(), trial_id, attempt)
        if trial.state != "running":
            raise LeaseLostError(f"Trial {trial_id} is {trial.state}.")
        put_artifact(session, trial, answer.name, sha256=answer.sha256, size_bytes=answer.bytes)
        session.flush()
        incoming.replace(target)
        for folder in (target.parent, *target.parent.parents[:2]):  # attempt, trial, artifacts
            sync(folder)
