"""Texts alone from a file, for a model to be asked about: no label is needed, no row is dropped."""

from collections.abc import Sequence
from pathlib import Path

from model.cells import check_characters
from model.config import DataOptions
from model.errors import InputError
from model.labels.label_reader import LabelReader
from model.sources import open_source
from model.text_columns import check_text_columns
from model.text_recipe import TextRecipe, joined_columns, plain_column, template_recipe

_NAME = "input"
"""What errors call the file."""


def read_texts_file(path: Path, options: DataOptions, reader: LabelReader) -> tuple[list[str], ...]:
    """Read the texts of a CSV, TSV, JSONL or Parquet file, column by column.

    A missing one is "", or `DataOptions.missing_token` where `DataOptions.missing` says so, as in
    the data that a model has learned from. Raises `InputError` as `model.data.normalise` does,
    naming ``input``.
    """
    source = open_source(path, _NAME, options)
    recipes = _recipes(source.columns(), options, reader)
    names = list(dict.fromkeys(name for recipe in recipes for name in recipe.columns))
    placeholder = options.placeholder
    rows: list[list[str]] = []
    for place, values in source.rows(names):
        where = (_NAME, f"{source.unit} {place}")
        row = dict(zip(names, values, strict=True))
        cells = [
            row[recipe.columns[0]] if recipe.plain else recipe.text(row, where, placeholder)[0]
            for recipe in recipes
        ]
        texts = reader.texts(cells, where)
        check_characters(texts, where)
        rows.append([text or placeholder or "" for text in texts])
    return tuple([row[place] for row in rows] for place in range(len(recipes)))


def _recipes(found: Sequence[str], options: DataOptions, reader: LabelReader) -> list[TextRecipe]:
    """Of the text, or of each of several; without options the columns that a data set's have."""
    if options.text_columns is not None:
        check_text_columns(options)
        return [plain_column(_known(name, "text_columns", found)) for name in options.text_columns]
    usual = options.template is None and options.text is None
    if options.template is not None:
        first = template_recipe(options.template, found)
    elif usual:
        name = next((name for name in reader.text_names if name in found), reader.text_names[0])
        first = plain_column(_known(name, "text", found))
    else:
        names = (options.text,) if isinstance(options.text, str) else options.text or ()
        known = [_known(name, "text", found) for name in names]
        first = joined_columns(known, options.separator)
    second = options.text_b or ("text_b" if usual and "text_b" in found else None)
    return [first] if second is None else [first, plain_column(_known(second, "text_b", found))]


def _known(name: str, option: str, found: Sequence[str]) -> str:
    if name in found:
        return name
    detail = (
        f"The input file has no column {name!r}; it has {', '.join(map(repr, found))}. "
        f"Name the right one in options.{option}."
    )
    raise InputError("missing_column", detail, ("options", option))
