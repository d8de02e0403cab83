"""What is wrong with a field, in the words of whoever wrote it rather than of a Python class."""

from pydantic_core import ErrorDetails

_NO_FIELDS = "fields with values are expected here, as in {field: value}"
_PLAIN_WORDS = {
    "extra_forbidden": "there is no such field",
    "missing": "it is missing",
    "model_type": _NO_FIELDS,
    "dict_type": _NO_FIELDS,
}


def fault_text(fault: ErrorDetails) -> str:
    """One of `pydantic.ValidationError.errors`, without its place."""
    return _PLAIN_WORDS.get(fault["type"], fault["msg"])
