"""How a row's text is made of its columns: one as it stands, several joined, or a template."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from string import Formatter
from typing import Any

from model.cells import Where, as_text, at
from model.errors import InputError

_OPTION = ("options", "template")


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or what a path leads to in its JSON."""

    column: str
    path: tuple[str, ...] = ()

    def text(self, row: Mapping[str, object], where: Where) -> str:
        """The value as text, "" when it is missing. Raises `InputError`."""
        value = row[self.column]
        if self.path:
            if isinstance(value, str):
                value = _parse(value, self.column, where)
            for name in self.path:
                value = value.get(name) if isinstance(value, dict) else None
        try:
            return _as_plain_text(value, where)
        except RecursionError as error:  # what the parser of a line still took may be too much here
            detail = f"{at(where)} has JSON in {self.column!r} that is nested too deep for a text."
            raise InputError("bad_json", detail, where) from error


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """Literal texts around fields, or fields joined by a separator."""

    fields: tuple[Field, ...]
    literals: tuple[str, ...] = ("", "")
    """What stands before each field and after the last one; unused where fields are joined."""
    separator: str | None = None
    shown: str = ""
    """The recipe in one line."""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(field.column for field in self.fields))

    @property
    def plain(self) -> bool:
        """Whether the text is a column as it stands."""
        return self.separator is None and self.literals == ("", "") and not self.fields[0].path

    def text(
        self, row: Mapping[str, object], where: Where, placeholder: str | None
    ) -> tuple[str, bool]:
        """The text, and whether a field of it is missing. Without any of them it is "".

        A missing field is ``placeholder``; where there is none it is left out of a joined text and
        is empty in a template. Raises `InputError`.
        """
        texts = [field.text(row, where) for field in self.fields]
        if not any(texts):
            return "", True
        missing = not all(texts)
        shown = [text or placeholder or "" for text in texts]
        if self.separator is not None:
            return self.separator.join(text for text in shown if text), missing
        pairs = zip(self.literals, [*shown, ""], strict=True)
        return "".join(literal + text for literal, text in pairs), missing


def plain_column(name: str) -> TextRecipe:
    return TextRecipe((Field(name),), shown=name)


def joined_columns(names: Sequence[str], separator: str) -> TextRecipe:
    """Raises `InputError` ``invalid_value`` for no column or one that is named twice."""
    if not names or len(set(names)) < len(names):
        detail = "options.text names one column, or several different ones."
        raise InputError("invalid_value", detail, ("options", "text"))
    if len(names) == 1:
        return plain_column(names[0])
    fields = tuple(map(Field, names))
    return TextRecipe(fields, separator=separator, shown=" + ".join(names))


def template_recipe(template: str, found: Sequence[str]) -> TextRecipe:
    """Read a template whose fields are columns of ``found`` or dotted paths into their JSON.

    Braces that are meant are doubled. Raises `InputError` ``invalid_value``, or ``missing_column``.
    """
    literals, names = [""], []
    try:
        for literal, name, spec, conversion in Formatter().parse(template):
            literals[-1] += literal
            if name is None:
                continue
            if not name or spec or conversion:
                raise ValueError("a field is a column's name in braces, and nothing else")
            names.append(name)
            literals.append("")
    except ValueError as error:
        detail = f"options.template cannot be read: {error}. Braces that are meant are doubled."
        raise InputError("invalid_value", detail, _OPTION) from error
    if not names:
        detail = f"options.template names no column, such as {{{found[0] if found else 'text'}}}."
        raise InputError("invalid_value", detail, _OPTION)
    fields = tuple(_field(name, found) for name in names)
    return TextRecipe(fields, tuple(literals), shown=template)


def _field(name: str, found: Sequence[str]) -> Field:
    """The longest column that the name begins with; what follows are steps into its JSON."""
    steps = name.split(".")
    for length in range(len(steps), 0, -1):
        column = ".".join(steps[:length])
        if column in found:
            return Field(column, tuple(steps[length:]))
    known = ", ".join(map(repr, found))
    detail = f"The template names {name!r}, which is no column; the train file has {known}."
    raise InputError("missing_column", detail, _OPTION)


def _parse(text: str, column: str, where: Where) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        detail = f"{at(where)} has no JSON in {column!r}, which the template looks into: {error}."
        raise InputError("bad_json", detail, where) from error


def _as_plain_text(value: object, where: Where) -> str:
    """Lists as their parts, dates as ISO 8601, objects as JSON."""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, (_as_plain_text(part, where) for part in value)))
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return as_text(value, where)
