"""What all schemas on the wire share: strict requests, UTC times, lists with a cursor."""

from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer

Item = TypeVar("Item")


def _iso_z(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Utc = Annotated[datetime, PlainSerializer(_iso_z, return_type=str)]
"""An aware datetime, written as ISO 8601 in UTC with `Z`."""


class Request(BaseModel):
    """A body that a caller sends: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A body that the server sends. A client ignores fields that a newer server adds."""

    model_config = ConfigDict(frozen=True)


class Page(Answer, Generic[Item]):
    """One page of a list; ``next_cursor`` goes back as ``?cursor=`` and is null on the last."""

    items: list[Item]
    next_cursor: str | None = None


class ErrorAnswer(Answer):
    """Every error's body: a stable code, a sentence, and the path to what is wrong."""

    error: str
    detail: str
    where: list[str | int] = []
