"""What may be asked of several text columns, for the reader, the trainer and the server alike."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from model.config import DataOptions
from model.errors import InputError

MOST_COLUMNS = 8
MORE = "more"
"""The column of a normalised file with the third text and those after it, where there are any."""


def check_text_columns(options: DataOptions) -> None:
    """Raise `InputError` ``invalid_value`` unless the option, which must be stated, names two to
    eight different columns and none other says what the texts are."""
    names = options.text_columns or ()
    other = next((name for name in ("text", "template", "text_b") if getattr(options, name)), None)
    if other is not None:
        detail = f"Give options.text_columns or options.{other}; both say what the texts are."
        raise InputError("invalid_value", detail, ("options", "text_columns"))
    if not 2 <= len(names) <= MOST_COLUMNS or len(set(names)) < len(names):
        detail = (
            f"options.text_columns names two to {MOST_COLUMNS} different columns; one text column "
            "is named by options.text."
        )
        raise InputError("invalid_value", detail, ("options", "text_columns"))


def text_fields(found: Sequence[str]) -> list[str]:
    """The columns of a normalised file that hold texts, among those that it has."""
    return [name for name in ("text_a", "text_b", MORE) if name in found]


def row_texts(batch: pa.RecordBatch | pa.Table) -> Iterator[tuple[str, ...]]:
    """The texts of every row, one or more, of a batch with all `text_fields`."""
    columns = (batch[name].to_pylist() for name in text_fields(batch.schema.names))
    for first, second, *more in zip(*columns, strict=True):
        yield (first, *(() if second is None else (second,)), *(more[0] if more else ()))


def only_one_text(where: tuple[str | int, ...]) -> InputError:
    """For `columns: apart` on rows of one text."""
    detail = (
        "columns apart takes rows of several texts, and these have one. Name the columns in the "
        "data option text_columns, or leave columns at joined."
    )
    return InputError("invalid_value", detail, where)
