"""The worker protocol: claim a trial, renew and report, end it, upload what it made.

Its routes are coroutines that go to a thread once. As plain functions FastAPI would take them to a
thread thrice: for what they depend on, for themselves, and to check their answers.
"""

import asyncio
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse

from service.context import Context
from service.errors import NotFoundError
from service.queue.artifact_upload import receive_artifact
from service.routes.documented import errors
from service.store.checkpoints import checkpoint_for
from studies.wire.leases import (
    EndAnswer,
    FailureRequest,
    Lease,
    LeaseRequest,
    ReleaseRequest,
    RenewAnswer,
    RenewRequest,
    ResultRequest,
    UploadAnswer,
)

router = APIRouter(prefix="/v1/leases", tags=["leases"])
TrialId = Annotated[str, Path(pattern=r"^[^\x00]{1,100}$", description="A lease's trial_id")]
AttemptNumber = Annotated[int, Path(ge=1, le=2**31 - 1, description="A lease's attempt")]
ArtifactName = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$", description="A plain file name")
]

LOOK_S = 1.0
"""A waiting claim looks again this often: another server on the database wakes nobody here."""


@router.post(
    "",
    summary="Claim a trial",
    response_model=Lease,
    responses={**errors(422), 204: {"description": "Nothing waits; ask again"}},
)
async def claim(request: Request, context: Context, body: LeaseRequest) -> Lease | Response:
    """Waits up to `wait_s` for a trial. The same request sent again gets the same lease while it
    holds; a slot that asks with another `request_id` gives up the lease it holds."""
    dispatcher, loop = context.dispatcher, asyncio.get_running_loop()
    deadline = loop.time() + body.wait_s
    arrives = True
    # A client that is gone must not be given a trial: nobody would train it.
    while not await request.is_disconnected():
        lease = await to_thread.run_sync(partial(dispatcher.claim, body, arrives=arrives))
        if lease is not None:
            return lease
        arrives = False
        left_s = deadline - loop.time()
        if left_s <= 0 or context.waker.closed:
            break
        await context.waker.wait(min(LOOK_S, left_s))
    return Response(status_code=204)


@router.put("/{trial_id}/{attempt}", summary="Renew a lease", responses=errors(404, 409, 422))
async def renew(
    context: Context, trial_id: TrialId, attempt: AttemptNumber, body: RenewRequest
) -> RenewAnswer:
    """Extends the lease, stores the epochs reported, and answers how to go on. Reports of an epoch
    that is known are left out, so a renewal may be sent again."""
    return await to_thread.run_sync(context.dispatcher.renew, trial_id, attempt, body)


@router.post(
    "/{trial_id}/{attempt}/result", summary="End with a result", responses=errors(404, 409, 422)
)
async def finish(
    context: Context, trial_id: TrialId, attempt: AttemptNumber, body: ResultRequest
) -> EndAnswer:
    """Metrics, scores per class, confusion matrix and the trial's state change in one transaction.
    A completed trial whose value is not finite counts as failed."""
    return await to_thread.run_sync(context.dispatcher.finish, trial_id, attempt, body)


@router.post("/{trial_id}/{attempt}/failure", summary="End badly", responses=errors(404, 409, 422))
async def fail(
    context: Context, trial_id: TrialId, attempt: AttemptNumber, body: FailureRequest
) -> EndAnswer:
    """With `retry` the trial is tried again, until it has crashed too often."""
    return await to_thread.run_sync(context.dispatcher.fail, trial_id, attempt, body)


@router.post(
    "/{trial_id}/{attempt}/release", summary="Give a trial back", responses=errors(404, 409, 422)
)
async def release(
    context: Context, trial_id: TrialId, attempt: AttemptNumber, body: ReleaseRequest
) -> EndAnswer:
    """The trial is queued again, unharmed."""
    return await to_thread.run_sync(context.dispatcher.release, trial_id, attempt, body)


@router.put(
    "/{trial_id}/{attempt}/artifacts/{name}",
    summary="Upload an artifact",
    status_code=201,
    responses=errors(400, 404, 409, 413, 422, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"format": "binary"}}},
        }
    },
)
async def upload(
    request: Request,
    context: Context,
    trial_id: TrialId,
    attempt: AttemptNumber,
    name: ArtifactName,
) -> UploadAnswer:
    """The raw body, stored under (trial, attempt)."""
    return await receive_artifact(request, context, trial_id, attempt, name)


@router.get(
    "/{trial_id}/{attempt}/resume",
    summary="Download the checkpoint to go on from",
    response_class=FileResponse,
    responses=errors(404, 409, 422),
)
def download_checkpoint(
    context: Context, trial_id: TrialId, attempt: AttemptNumber
) -> FileResponse:
    """The newest one that earlier attempts of the trial uploaded, for who holds the lease."""
    with context.database.reading() as session:
        artifact = checkpoint_for(session, trial_id, attempt)
    path = context.folders.artifact(artifact.trial_id, artifact.attempt, artifact.name)
    if not path.is_file():
        raise NotFoundError(f"The file {artifact.name} is gone from the disk.", code="file_gone")
    headers = {"ETag": f'"{artifact.sha256}"', "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, filename=artifact.name, headers=headers)
