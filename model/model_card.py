"""The README of a saved model: what it is, how good it is, and what it was made with."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from model.config import LOSS_WEIGHT, SCRATCH_PREFIX, Pooling, TrainConfig, settings_of
from model.markdown import code, literal
from model.measures import DEFAULT_HEAD, PER_CLASS
from model.metrics import Evaluation, Matrix, confused_pairs
from model.tasks.catalogue import task_named
from model.tasks.learning_task import TEXTS

MATRIX_CLASSES = 20
"""With more classes than this a full matrix is unreadable; the largest confusions are listed, and
the cells below them."""
MOST_CELLS = 2000
_FENCE = "``````"
"""Longer than what a label may hold."""


def model_card(
    config: TrainConfig,
    best: Evaluation,
    best_epoch: int,
    dataset_key: str,
    facts: Mapping[str, Any],
    *,
    epochs: int,
    pooling: Pooling | None = None,
) -> str:
    """Markdown. All figures are of the validation split at the best epoch (0-based) of ``epochs``.

    ``facts`` are the task's, as the folder's `config.json` has them; ``pooling`` is one that the
    architecture does not do by itself.
    """
    settings = {
        name: getattr(config, name)
        for name in settings_of(config.task, config.heads)
        if not name.startswith(LOSS_WEIGHT)
    }
    settings |= {f"{LOSS_WEIGHT}{head}": config.loss_weights.get(head, 1) for head in config.heads}
    settings |= {"task": config.task, "seed": config.seed}
    for name in ("dropout", "pooling"):
        if settings.get(name, ...) is None:
            settings[name] = "the base model's own"
    library = "transformers" if pooling is None else "bertune"
    versions = ((name, version(name)) for name in ("torch", "transformers", "tokenizers"))
    task, base = task_named(config.task), _base_name(config.model)
    sections = [
        f"---\nlibrary_name: {library}\npipeline_tag: {task.pipeline}\n---",
        f"# {literal(base)} for {config.task}: {len(best.labels)} labels",
        f"Trained from {code(base)} on data set `{dataset_key}`. The weights are those of epoch "
        f"{best_epoch + 1} of {epochs}, the best by validation {config.metric}.",
        *_usage(config, task.example, pooling, facts.get(TEXTS, 1)),
        "## Validation metrics",
        _table(("metric", "value"), ((k, _number(v)) for k, v in best.metrics.items())),
        *_classes(best),
        *_matrices(best),
        *_facts(facts),
        "## Settings",
        _table(("setting", "value"), settings.items()),
        "## Versions",
        _table(("package", "version"), versions),
    ]
    return "\n\n".join(sections) + "\n"


_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def _usage(config: TrainConfig, example: str, pooling: Pooling | None, texts: int) -> list[str]:
    """How to ask the model, and what Transformers' pipeline does otherwise than the training."""
    of_row = [f"{ordinal} text" for ordinal in _ORDINALS[:texts]] if texts > 1 else ["some text"]
    asked = ", ".join(f'["{text}"]' for text in of_row)
    ours = (
        "```python\nfrom model.prediction import predict  # of Bertune\n\n"
        f'predict("path/to/this/folder", {asked})\n```'
    )
    if texts > 1:
        example = _pair_example(example, of_row)
    pipeline = f"```python\nfrom transformers import pipeline\n\n{example}\n```"
    if pooling is not None:
        told = (
            f"The classifier reads the {pooling} of all tokens, which no class of Transformers "
            "does for this architecture, so Transformers refuses to load this folder. Bertune "
            "predicts as it did in training:"
        )
        return [told, ours]
    if texts > 1 and config.columns == "apart":
        return [_apart_usage(config, example, of_row), ours]
    if texts > 2:
        told = (
            f"Every row has {texts} texts, which were read in one sequence with separators. The "
            "pipeline takes two, so the others follow the second one behind the separator, twice "
            "for tokenizers that put two between texts, as RoBERTa's does. It says the same of "
            "rows that fit; of longer ones Bertune cuts the longest text first:"
        )
        return [pipeline, told, ours]
    if config.truncation == "windows":
        told = (
            f"The figures below are of whole texts, read in windows of {config.max_length} word "
            f"pieces whose logits were pooled ({config.window_pooling}). The pipeline reads the "
            "first window only; Bertune reads all of them:"
        )
        return [pipeline, told, ours]
    if config.truncation == "head_tail":
        told = (
            f"The figures below are of texts cut to the first and last of their word pieces, "
            f"{config.max_length} in all. Of a longer text the pipeline reads the start only; "
            "Bertune reads both ends:"
        )
        return [pipeline, told, ours]
    return [pipeline]


def _pair_example(example: str, texts: Sequence[str]) -> str:
    """``example`` with a row of several texts in the place of one."""
    second = " + separator + ".join(f'"{text}"' for text in texts[1:])
    row = f'{{"text": "{texts[0]}", "text_pair": {second}}}'
    if len(texts) > 2:
        row = row.replace("separator", "classify.tokenizer.sep_token")
    return example.replace('"some text"', row)


def _apart_usage(config: TrainConfig, example: str, texts: Sequence[str]) -> str:
    """How the logits of a row's texts become the row's."""
    make = example.splitlines()[0]
    together = "max(found)" if config.column_pooling == "max" else "sum(found) / len(found)"
    rows = ", ".join(f'"{text}"' for text in texts)
    code = (
        f"from transformers import pipeline\n\n{make}\n"
        f"texts = [{rows}]  # of one row, without those that are empty\n"
        'said = classify(texts, function_to_apply="none", top_k=None, truncation=True)\n'
        'logits = [{one["label"]: one["score"] for one in text} for text in said]\n'
        "row = {}\n"
        "for label in logits[0]:\n"
        "    found = [one[label] for one in logits]\n"
        f"    row[label] = {together}"
    )
    after = {
        "single_label": "The label with the highest value is the row's; a softmax over the values "
        "gives its probability.",
        "multi_label": "A sigmoid of each value gives the label's probability.",
        "regression": "The value is the row's number.",
    }
    return (
        f"Every row has {len(texts)} texts. Each was read by itself, and the row's logits are the "
        f"{config.column_pooling} of theirs. With Transformers:\n\n```python\n{code}\n```\n\n"
        f"{after.get(config.task, '')} Bertune does all of this, windows and both ends of long "
        "texts included:"
    )


def _base_name(model: str) -> str:
    """A folder's own name: where it stands on the training machine is nobody's business."""
    return model if model.startswith(SCRATCH_PREFIX) else Path(model).name


def _classes(best: Evaluation) -> list[str]:
    rows = [
        [c.full_name, _number(c.precision), _number(c.recall), _number(c.f1), c.support]
        for c in best.per_class
    ]
    header = ("label", "precision", "recall", "f1", "support")
    return ["## Per class", _table(header, rows)] if rows else []


def _matrices(best: Evaluation) -> list[str]:
    whole = [matrix for matrix in best.matrices if matrix.kind != PER_CLASS]
    sections = [
        part
        for matrix in whole
        for part in (f"## Confusion: {matrix.full_name}, in {matrix.unit}", _confusion(matrix))
    ]
    halves = [matrix for matrix in best.matrices if matrix.kind == PER_CLASS]
    if halves:
        header = ("label", "found", "missed", "wrongly said", "rightly not said")
        rows = ((_of_head(m), *m.counts[[1, 1, 0, 0], [1, 0, 1, 0]].tolist()) for m in halves)
        sections += ["## Every class against the rest, in rows", _table(header, rows)]
    return sections


def _of_head(half: Matrix) -> str:
    """A class's name in its 2×2 matrix, with its head's where there are several."""
    label = half.labels[1]
    return label if half.head == DEFAULT_HEAD else f"{half.head}.{label}"


def _confusion(matrix: Matrix) -> str:
    if len(matrix.labels) <= MATRIX_CLASSES:
        rows = ([label, *row] for label, row in zip(matrix.labels, matrix.counts, strict=True))
        return _table(("true \\ predicted", *matrix.labels), rows)
    pairs = confused_pairs(matrix, most=MATRIX_CLASSES)
    header = ("true", "predicted", matrix.unit)
    return f"The most frequent confusions:\n\n{_table(header, pairs)}\n\n{_cells(matrix, header)}"


def _cells(matrix: Matrix, header: Sequence[str]) -> str:
    """The matrix cell by cell, as CSV; what is not listed is 0, or less than all that is."""
    places = np.argwhere(matrix.counts)
    counts = matrix.counts[tuple(places.T)]
    largest = np.argsort(-counts, kind="stable")[:MOST_CELLS]
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(header)
    for k in np.sort(largest):
        true, predicted = places[k]
        table.writerow((matrix.labels[true], matrix.labels[predicted], int(counts[k])))
    told = "All cells that are not 0" if len(places) <= MOST_CELLS else "The largest cells"
    return (
        f"<details><summary>{told}</summary>\n\n{_FENCE}csv\n{lines.getvalue()}{_FENCE}\n\n"
        "</details>"
    )


def _facts(facts: Mapping[str, Any]) -> list[str]:
    """What `config.json` says of the task, in numbers: thresholds by label, mean and deviation."""
    heads = facts.get("heads", {})
    sections = [] if not heads else ["## Heads", _table(("head", "task", "labels"), _heads(heads))]
    for prefix, stated in (("", facts), *((f"{head}: ", found) for head, found in heads.items())):
        for name in ("thresholds", "scale"):
            rows = [(key, f"{number:.6g}") for key, number in stated.get(name, {}).items()]
            if rows:
                title = f"## {(prefix + name) if prefix else name.capitalize()}"
                sections += [title, _table(("name", "value"), rows)]
    return sections


def _heads(heads: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    for head, found in heads.items():
        labels = found["labels"] if found["task"] != "regression" else ("a number",)
        more = f" and {len(labels) - MATRIX_CLASSES} more" if len(labels) > MATRIX_CLASSES else ""
        yield head, found["task"], ", ".join(labels[:MATRIX_CLASSES]) + more


def _table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(literal(str(cell)) for cell in cells)} |"


def _number(value: float) -> str:
    return f"{value:.4f}"
