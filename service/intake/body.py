"""A request's body, block by block: bounded, and never begun when the disk has no room for it."""

from collections.abc import Callable
from pathlib import Path

from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from service.disk_space import demand_room
from service.errors import ServiceError, TooLargeError
from service.settings import Settings

BLOCK_BYTES = 1 << 20
"""Chunks of the network are gathered to this size before a thread writes them."""


class BrokenUploadError(ServiceError):
    status = 400
    code = "broken_upload"


async def receive_body(
    request: Request, settings: Settings, folder: Path, write: Callable[[bytes], None]
) -> None:
    """Pass the body to ``write``, which stores it under ``folder``, in threads.

    Raises `TooLargeError` and `DiskFullError` as soon as either is known, from the declared length
    or from what has come so far, and `BrokenUploadError` when the sender goes away.
    """

    def check_and_write(block: bytes) -> None:
        demand_room(folder, len(block), keep_free_bytes=settings.min_free_bytes)
        write(block)

    limit = settings.max_upload_bytes
    declared = request.headers.get("content-length", "")
    declared_bytes = int(declared) if declared.isdecimal() else 0
    _check_size(declared_bytes, limit)
    demand_room(folder, declared_bytes, keep_free_bytes=settings.min_free_bytes)
    received, block = 0, bytearray()
    try:
        async for chunk in request.stream():
            received += len(chunk)
            _check_size(received, limit)
            block += chunk
            if len(block) >= BLOCK_BYTES:
                await to_thread.run_sync(check_and_write, bytes(block))
                block.clear()
    except ClientDisconnect as error:
        raise BrokenUploadError("The sender went away before the upload was complete.") from error
    if block:
        await to_thread.run_sync(check_and_write, bytes(block))


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(f"An upload may have {limit} bytes (BERTUNE_MAX_UPLOAD_BYTES).")
