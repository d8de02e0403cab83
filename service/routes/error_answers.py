"""Turns every error into the one error body: a code, a sentence, and the path to what is wrong."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from model.errors import InputError
from service.body_paths import Path, clean_path
from service.context import ServerContext
from service.disk_space import means_full_disk
from service.errors import DatabaseUnavailableError, DiskFullError, ServiceError
from service.store.outage import is_unavailable
from studies.wire.base import ErrorAnswer

logger = logging.getLogger(__name__)

MAX_PROBLEMS_TOLD = 5
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def install_error_answers(app: FastAPI) -> None:
    """Register the handlers; errors that no one foresaw are logged with their traceback."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _file_error)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(PoolTimeoutError, _database_error)
    app.add_exception_handler(Exception, _unforeseen)


def _answer(
    status: int,
    code: str,
    detail: str,
    where: Sequence[str | int] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    body = ErrorAnswer(error=code, detail=detail, where=list(where)).model_dump()
    return JSONResponse(body, status_code=status, headers=headers)


def _service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _answer(error.status, error.code, error.detail, error.where)


def _input_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, InputError)
    return _answer(422, error.code, error.detail, ["body", *error.where])


def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems: dict[Path, list[str]] = {}
    for problem in error.errors():
        path = _told_path(problem["loc"], error.body)
        problems.setdefault(path, []).append(problem["msg"])
    told = [_sentence(path, messages) for path, messages in problems.items()]
    detail = "; ".join(told[:MAX_PROBLEMS_TOLD])
    if len(told) > MAX_PROBLEMS_TOLD:
        detail += f"; and {len(told) - MAX_PROBLEMS_TOLD} more"
    return _answer(422, "invalid_request", detail, next(iter(problems)))


def _sentence(path: Path, messages: Sequence[str]) -> str:
    """One place may have several messages: those of the members of a union."""
    message = " or ".join(dict.fromkeys(m.removeprefix("Value error, ") for m in messages))
    if message == "Extra inputs are not permitted":
        message = "there is no such field"
    elif path == ("body",) and message.startswith("Input should be a valid dictionary"):
        message = "send a JSON object, with the header Content-Type: application/json"
    return f"{'.'.join(map(str, path[1:])) or path[0]}: {message}"


def _told_path(path: Path, body: Any) -> Path:
    """``path`` begins with where in the request its field stands: body, query, path, header."""
    return ("body", *clean_path(path[1:], body)) if path and path[0] == "body" else path


def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "bad_request")
    headers = dict(error.headers) if error.headers else None
    return _answer(error.status_code, code, str(error.detail), headers=headers)


def _file_error(request: Request, error: Exception) -> Response:
    if _means_full_disk(request, error):
        return _full_disk(request, error)
    raise error  # unforeseen, like any other


def _means_full_disk(request: Request, error: Exception) -> bool:
    context: ServerContext = request.app.state.context
    return means_full_disk(error, context.folders.home)


def _full_disk(request: Request, error: Exception) -> Response:
    logger.error("%s %s: the disk is full: %s", request.method, request.url.path, error)
    detail = "The disk of the server or of its database is full: nothing was stored. Make room."
    return _answer(DiskFullError.status, DiskFullError.code, detail)


def _database_error(request: Request, error: Exception) -> Response:
    if _means_full_disk(request, error):
        return _full_disk(request, error)
    if not is_unavailable(error):
        return _unforeseen(request, error)
    reason = str(error).partition("\n")[0]
    logger.error("%s %s: the database failed: %s", request.method, request.url.path, reason)
    away = DatabaseUnavailableError()
    headers = {"Retry-After": str(away.retry_after_s)}
    return _answer(away.status, away.code, away.detail, headers=headers)


def _unforeseen(request: Request, error: Exception) -> Response:
    logger.error("%s %s: unforeseen error", request.method, request.url.path, exc_info=error)
    return _answer(500, "internal_error", "The server made an error; its log has the details.")
