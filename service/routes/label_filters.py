"""The filter `?label=key:value` of lists and streams."""

from typing import Annotated

from fastapi import Query

from service.errors import ServiceError

LabelFilters = Annotated[
    list[str], Query(alias="label", description="`key:value`; several must all hold")
]


class FilterError(ServiceError):
    status = 422
    code = "invalid_filter"


def label_filter(text: str) -> tuple[str, str]:
    """Key and value; raises `FilterError`."""
    key, colon, value = text.partition(":")
    if not colon or "\0" in text:
        detail = f"A label filter reads key:value; got {text!r}."
        raise FilterError(detail, where=["query", "label"])
    return key, value
