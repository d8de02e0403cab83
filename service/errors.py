"""Errors with an HTTP status. One handler (in `service.app`) turns them into the error body."""

from collections.abc import Sequence


class ServiceError(Exception):
    """An answer that is not a success; ``code`` is stable and has a README row."""

    status = 400
    code = "bad_request"

    def __init__(
        self, detail: str, *, code: str | None = None, where: Sequence[str | int] = ()
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.where = list(where)


class NotFoundError(ServiceError):
    status = 404
    code = "not_found"


class ConflictError(ServiceError):
    status = 409
    code = "conflict"


class LeaseLostError(ConflictError):
    """The (trial, attempt) a worker names no longer holds; nothing was changed."""

    code = "lease_lost"


class UnauthorizedError(ServiceError):
    status = 401
    code = "unauthorized"


class TooLargeError(ServiceError):
    status = 413
    code = "too_large"


class DatabaseUnavailableError(ServiceError):
    """Nothing is known of what the request did; it may be sent again."""

    status = 503
    code = "database_unavailable"
    retry_after_s = 2

    def __init__(self) -> None:
        super().__init__("The database does not answer now; try again.")


class DiskFullError(ServiceError):
    """Nothing was stored; the same request may succeed once there is room."""

    status = 507
    code = "disk_full"
