"""Fields in braces that texts of users hold: `{date}` in a schedule, `{study}` in a webhook."""

import re
from collections.abc import Mapping

from model.errors import InputError

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def fill_braces(text: str, values: Mapping[str, str], where: tuple[str, ...]) -> str:
    """``text`` with its fields filled in; a doubled brace stands for one.

    Raises `InputError` ``invalid_template`` for a field without a value.
    """

    def value(found: re.Match[str]) -> str:
        whole, name = found[0], found[1]
        if whole in ("{{", "}}"):
            return whole[0]
        if name in values:
            return values[name]
        known = ", ".join(f"{{{field}}}" for field in values)
        detail = f"{whole} in {text!r} is no field. Known: {known}; write {{{{ for a brace."
        raise InputError("invalid_template", detail, where)

    return _BRACES.sub(value, text)
