"""A server that answers a client from a script, without a process or a socket."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import httpx

Handler = Callable[[httpx.Request], httpx.Response]


def study_body(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": "s1",
        "name": "tickets",
        "state": "running",
        "pause": None,
        "trials": {"completed": 1, "queued": 2},
        "best": None,
        "test": None,
        "progress": {"done": 1, "total": 3, "eta_s": None},
        "disk_bytes": 0,
        "error": None,
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "finished_at": None,
        "labels": {},
        "dataset": "d1",
        "model": "scratch:tiny",
        "task": "single_label",
        "objective": {"metric": "macro_f1", "direction": "maximize"},
        "spec": {},
    }
    return {**body, **changes}


def trial_body(number: int, **changes: Any) -> dict[str, Any]:
    """A trial of a list."""
    body: dict[str, Any] = {
        "number": number,
        "state": "completed",
        "attempt": 1,
        "params": {"learning_rate": 1e-4, "batch_size": 16},
        "value": 0.5,
        "best_epoch": 1,
        "error": None,
        "metrics": {"macro_f1": 0.5, "loss": 0.3},
        "epoch": 2,
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:01:30Z",
    }
    return {**body, **changes}


def error_body(code: str, detail: str = "No.") -> dict[str, Any]:
    return {"error": code, "detail": detail, "where": ["body", "seed"]}


class Script:
    """Answers requests from a list, in order; an exception in it is raised instead."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers: Iterator[httpx.Response | Exception] = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ok(body: Any) -> httpx.Response:
    return httpx.Response(200, json=body)


def packed_model() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", json.dumps({"model_type": "bert"}))
    return buffer.getvalue()
