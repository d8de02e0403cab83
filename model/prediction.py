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
from model.data import Examples
from model.devices import choose_device
from model.errors import InputError
from model.evaluation import evaluate
from model.labels.readers import texts_reader
from model.saved_model import read_saved
from model.text_repair import TextRepair


def predict(
    folder: Path | str,
    texts: Sequence[str],
    second_texts: Sequence[str] | None = None,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    normalise: bool = True,
) -> list[Any]:
    """What the model of ``folder`` says of every text (or pair), in their order: of `model.answers`
    the one of its task.

    A model of tags reads the tokens between white space. ``normalise`` repairs texts as the reader
    of data does unless its option of this name says otherwise. Raises `InputError`: ``no_settings``
    for a model that was not saved by Bertune, ``wrong_task``, ``bad_row`` for a second text where
    tokens are tagged, and what a folder is refused for.
    """
    saved = read_saved(Path(folder))
    task = saved.config.task
    if task not in ANSWERED:
        detail = f"The model is for {task}; `predict` asks models of {', '.join(ANSWERED)}."
        raise InputError("wrong_task", detail, ("model",))
    if second_texts is not None and len(second_texts) != len(texts):
        detail = f"There are {len(texts)} first texts and {len(second_texts)} second texts."
        raise InputError("bad_row", detail, ("second_texts",))
    place = choose_device(device)
    if not texts:
        return []
    reader, repair = texts_reader(task), TextRepair().repair
    rows = zip(texts, *([] if second_texts is None else [second_texts]), strict=True)
    read = [reader.texts(row, ("texts", f"row {number}")) for number, row in enumerate(rows, 1)]
    if normalise:
        read = [[reader.repaired(text, repair) for text in row] for row in read]
    first = [row[0] for row in read]
    examples = Examples(
        first,
        None if second_texts is None else [row[1] for row in read],
        [placeholder(saved, text) for text in first],
        np.arange(1, len(first) + 1, dtype=np.int64),
    )
    evaluation = evaluate(Path(folder), examples, saved.labels, saved.config, device=place)
    return answers(evaluation, first)
