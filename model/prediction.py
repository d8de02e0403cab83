"""A saved model on new texts, which are read, pooled and told as in its training.

Also for models that Transformers' pipeline cannot run as they were trained: texts in windows or in
two halves, and tokens pooled as no class of Transformers pools them. It is the evaluation of the
trial itself, on texts whose labels nobody knows; so it says what the trial recorded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.answers import ANSWERED, answers, placeholder
from model.cells import Where, check_characters
from model.devices import choose_device
from model.errors import InputError
from model.evaluation import evaluate
from model.labels.label_reader import LabelReader
from model.labels.readers import texts_reader
from model.normalised_file import Examples
from model.saved_model import SavedModel, read_saved
from model.text_repair import TextRepair


def predict(
    folder: Path | str,
    texts: Sequence[str],
    second_texts: Sequence[str] | None = None,
    *more_texts: Sequence[str],
    device: Literal["auto", "cpu", "cuda"] = "auto",
    normalise: bool = True,
) -> list[Any]:
    """What the model of ``folder`` says of every row of texts, in their order: of `model.answers`
    the one of its task.

    A model of several text columns takes a list of texts for each, in the columns' order; "" where
    a row has none. A model of tags reads the tokens between white space. ``normalise`` repairs
    texts as the reader of data does unless its option of this name says otherwise. `InputError`:
    ``no_settings`` for a model that was not saved by Bertune, ``wrong_task``, ``bad_row`` for more
    or fewer texts a row than the model was trained on and for half of a surrogate pair, and what a
    folder is refused for.
    """
    saved = read_saved(Path(folder))
    task = saved.config.task
    if task not in ANSWERED:
        detail = f"The model is for {task}; `predict` asks models of {', '.join(ANSWERED)}."
        raise InputError("wrong_task", detail, ("model",))
    columns = [texts, *(() if second_texts is None else (second_texts,)), *more_texts]
    _check_columns(columns, saved)
    place = choose_device(device)
    if not texts:
        return []
    reader, repair = texts_reader(task), TextRepair().repair
    rows = zip(*columns, strict=True)
    read = [_read(row, reader, ("texts", f"row {number}")) for number, row in enumerate(rows, 1)]
    if normalise:
        read = [[reader.repaired(text, repair) for text in row] for row in read]
    first = [row[0] for row in read]
    examples = Examples(
        first,
        [row[1] for row in read] if len(columns) > 1 else None,
        [placeholder(saved, text) for text in first],
        np.arange(1, len(first) + 1, dtype=np.int64),
        tuple([row[place] for row in read] for place in range(2, len(columns))),
    )
    evaluation = evaluate(Path(folder), examples, saved.labels, saved.config, device=place)
    return answers(evaluation, first)


def _read(row: Sequence[str], reader: LabelReader, where: Where) -> list[str]:
    texts = reader.texts(row, where)
    check_characters(texts, where)
    return texts


def _check_columns(columns: Sequence[Sequence[str]], saved: SavedModel) -> None:
    for others in columns[1:]:
        if len(others) != len(columns[0]):
            detail = f"There are {len(columns[0])} first texts and {len(others)} second texts."
            raise InputError("bad_row", detail, ("second_texts",))
    if saved.texts not in (None, len(columns)):
        detail = f"The model reads {saved.texts} texts a row; got {len(columns)}."
        raise InputError("bad_row", detail, ("texts",))
