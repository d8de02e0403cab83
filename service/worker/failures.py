"""How the work for a lease can fail, and what the server is told of it."""

from model.disk import FREE_SPACE
from service.worker.lease_files import UnavailableError
from service.worker.server_link import RefusedError
from service.worker.trainer_process import Exited
from studies.wire.leases import FailureRequest

DISK_FULL = "disk_full"
DETAIL_CHARS = 20_000
HOST_MEMORY = (
    "The kernel ended the trainer because this machine ran out of memory: lower batch_size or "
    "max_length, run fewer slots, or give the worker more memory."
)


class JobFailedError(RuntimeError):
    """The trial ended badly; ``retry`` as in `studies.wire.leases.FailureRequest`."""

    def __init__(self, code: str, detail: str, *, retry: bool) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry = retry


class TrainerExitedError(RuntimeError):
    """The trainer died under the job."""

    def __init__(self, exited: Exited) -> None:
        super().__init__(f"The trainer process {exited.reason}.\n{exited.tail}")


Failure = JobFailedError | TrainerExitedError | UnavailableError | RefusedError
FAILURES = (JobFailedError, TrainerExitedError, UnavailableError, RefusedError)


def disk_full(error: OSError) -> JobFailedError:
    """This machine's disk is full; another one's may not be."""
    return JobFailedError(DISK_FULL, f"On the worker: {error}. {FREE_SPACE}", retry=True)


def spoils_trainer(error: Failure) -> bool:
    """Whether the trainer may be at work still, or in a state that nobody foresaw."""
    if isinstance(error, JobFailedError):
        return error.retry or error.code == "out_of_memory"
    return not isinstance(error, UnavailableError)


def failure_request(error: Failure) -> FailureRequest:
    """What to tell the server."""
    detail = str(error)[-DETAIL_CHARS:]
    if isinstance(error, JobFailedError):
        return FailureRequest(code=error.code, detail=detail, retry=error.retry)
    if isinstance(error, TrainerExitedError):
        return FailureRequest(code="trainer_crashed", detail=detail, retry=True)
    if isinstance(error, UnavailableError):
        return FailureRequest(code=error.code, detail=detail, retry=True)
    # 4xx: the same answer awaits every other worker.
    return FailureRequest(code="server_refused", detail=detail, retry=error.status >= 500)
