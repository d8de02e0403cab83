"""What all schemas on the wire share: strict requests, UTC times, lists with a cursor."""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainSerializer,
    model_validator,
)

Item = TypeVar("Item")


def iso_z(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Utc = Annotated[datetime, PlainSerializer(iso_z, return_type=str)]
"""An aware datetime, written as ISO 8601 in UTC with `Z`."""


def check_text(value: Any) -> None:
    """Raise `ValueError` if a text in a JSON document holds half a surrogate pair.

    JSON may write one (``\\ud800``), but no database stores it and no answer can repeat it.
    """
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("a text holds half a surrogate pair, which is no Unicode")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            check_text(item)
    elif isinstance(value, list):
        for item in value:
            check_text(item)


class Request(BaseModel):
    """A body that a caller sends: unknown fields are refused."""

    # What stands below a field is its description, in OpenAPI and in editors.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        validated = validate(value)  # first, since a field's own complaint says where it is
        check_text(value)
        return validated


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
