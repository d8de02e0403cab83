"""Which reader of labels a task has, and which task a file's columns speak of."""

from collections.abc import Sequence

from model.config import DataOptions, Task
from model.labels.label_reader import LabelReader
from model.labels.multi_label import MultiLabelReader
from model.labels.number import NumberReader
from model.labels.single_label import SingleLabelReader
from model.labels.tags import TagReader

READERS: dict[Task, LabelReader] = {
    reader.task: reader
    for reader in (SingleLabelReader(), MultiLabelReader(), TagReader(), NumberReader())
}


def reader_of(task: Task) -> LabelReader:
    return READERS[task]


def choose_reader(found: Sequence[str], options: DataOptions) -> LabelReader:
    """Go by the option, else by the columns of the train file, else take one label per row.

    The label's column decides, by its usual name or by ``options.label``.
    """
    if options.task is not None:
        return READERS[options.task]
    names = found if options.label is None else (options.label,)
    named = (reader for reader in READERS.values() if set(reader.label_names) & set(names))
    return next(named, READERS["single_label"])
