"""Studies: their documents, the search space, and the client of a Bertune server."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.client import AsyncClient as AsyncClient
    from studies.client import Client as Client
    from studies.spec import StudySpec as StudySpec
    from studies.wire.schedules import ScheduleSpec as ScheduleSpec

__all__ = ["AsyncClient", "Client", "ScheduleSpec", "StudySpec"]

_HOMES = {
    "AsyncClient": "studies.client",
    "Client": "studies.client",
    "ScheduleSpec": "studies.wire.schedules",
    "StudySpec": "studies.spec",
}


def __getattr__(name: str) -> Any:
    # Looked up on first use, so that importing one module of the package loads no HTTP client.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
