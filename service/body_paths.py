"""Where in a JSON body something is wrong: pydantic's path, as the sender would write it."""

from typing import Any

Path = tuple[str | int, ...]


def clean_path(path: Path, body: Any) -> Path:
    """Drop from pydantic's path the names of union members, which the body does not hold.

    ``search_space, learning_rate, float, low`` becomes ``search_space, learning_rate, low``.
    """
    cleaned: list[str | int] = []
    here = body
    for index, part in enumerate(path, start=1):
        last = index == len(path)
        if isinstance(here, dict) and (part in here or last):
            cleaned.append(part)
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            cleaned.append(part)
            here = here[part]
        elif not isinstance(here, dict | list):
            break
    return tuple(cleaned)
