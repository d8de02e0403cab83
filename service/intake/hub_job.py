"""What the server and the process that reads the hub tell each other; see `service.intake.hub`."""

from dataclasses import dataclass, field
from typing import Any

from model.config import Split

ANSWER_FILE = "answer.json"


@dataclass(frozen=True, slots=True)
class HubJob:
    """One reading, as JSON on the process's standard input."""

    hub: str
    config: str | None
    revision: str
    splits: dict[Split, str]
    label: str | None
    """A label column that the options name."""
    folder: str
    max_bytes: int
    keep_free_bytes: int


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """What came of it, as JSON in `ANSWER_FILE`: ``origin`` has the fields of
    `studies.wire.datasets.HubOrigin`, or an error's code stands."""

    origin: dict[str, Any] | None = None
    code: str | None = None
    detail: str = ""
    where: tuple[str, ...] = field(default=())
