"""Libraries of the extra `notebook`: imported when they are used, since most clients do without."""

from importlib import import_module
from typing import Any


def extra(name: str, what_for: str) -> Any:
    """The module ``name``. Raises `ModuleNotFoundError` that says how to install it."""
    library = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise  # something that the library itself lacks
        raise ModuleNotFoundError(
            f"{what_for} need {library}: pip install 'bertune[notebook]'", name=library
        ) from error
