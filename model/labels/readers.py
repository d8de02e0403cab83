"""Which reader of labels a task has, and which task a file's columns speak of."""

from collections.abc import Mapping, Sequence

from model.config import MULTI_TASK, DataOptions, LabelColumn, Task
from model.errors import InputError
from model.heads import stated_heads
from model.labels.label_reader import LabelReader
from model.labels.multi_label import MultiLabelReader
from model.labels.number import NumberReader
from model.labels.several_columns import ColumnsReader
from model.labels.single_label import SingleLabelReader
from model.labels.tags import TagReader

READERS: dict[Task, LabelReader] = {
    reader.task: reader
    for reader in (SingleLabelReader(), MultiLabelReader(), TagReader(), NumberReader())
}


def reader_of(task: Task, options: DataOptions) -> LabelReader:
    """Raises `InputError` for label columns that cannot be learned at once."""
    heads = stated_heads(options)
    return _columns_reader(heads) if heads else READERS[task]


def texts_reader(task: Task) -> LabelReader:
    """Reads the texts of a task, whatever their labels: several columns are of whole texts."""
    return READERS["single_label" if task == MULTI_TASK else task]


def heads_of(options: DataOptions) -> Mapping[str, Task]:
    """What the labels of several columns are, by head; empty where there is one. Raises as
    `reader_of`."""
    heads = stated_heads(options)
    return _columns_reader(heads).heads if heads else {}


def _columns_reader(heads: Mapping[str, LabelColumn]) -> ColumnsReader:
    readers = {
        head: READERS[stated.task] if stated.task else _usual_reader((stated.column,))
        for head, stated in heads.items()
    }
    tagged = next((head for head, reader in readers.items() if reader.task == "token"), None)
    if tagged is not None:
        detail = (
            f"The column of the head {tagged} is called as one of tags is, and heads have labels "
            "of whole texts. State its task, or train the tags in a study of their own."
        )
        raise InputError("invalid_value", detail, ("options", "label_columns", tagged))
    return ColumnsReader(readers)


def choose_reader(found: Sequence[str], options: DataOptions) -> LabelReader:
    """Go by the option, else by the columns of the train file, else take one label per row.

    The label's column decides, by its usual name or by ``options.label``. Raises `InputError` for
    label columns that cannot be learned at once.
    """
    heads = stated_heads(options)
    if heads:
        return _columns_reader(heads)
    if options.task is not None:
        return READERS[options.task]
    return _usual_reader(found if options.label is None else (options.label,))


def _usual_reader(names: Sequence[str]) -> LabelReader:
    named = (reader for reader in READERS.values() if set(reader.label_names) & set(names))
    return next(named, READERS["single_label"])
