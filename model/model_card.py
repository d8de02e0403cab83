"""The README of a saved model: what it is, how good it is, and what it was made with."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model.config import LOSS_WEIGHT, SCRATCH_PREFIX, Pooling, TrainConfig, settings_of
from model.measures import DEFAULT_HEAD, PER_CLASS
from model.metrics import Evaluation, Matrix, confused_pairs
from model.tasks.catalogue import task_named

MATRIX_CLASSES = 20
"""With more classes than this a full matrix is unreadable; the largest confusions are listed."""


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
    task = task_named(config.task)
    sections = [
        f"---\nlibrary_name: {library}\npipeline_tag: {task.pipeline}\n---",
        f"# {_base_name(config.model)} for {config.task}: {len(best.labels)} labels",
        f"Trained from `{_base_name(config.model)}` on data set `{dataset_key}`. The weights are "
        f"those of epoch {best_epoch + 1} of {epochs}, the best by validation "
        f"{config.metric}.",
        *_usage(config, task.example, pooling),
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


def _usage(config: TrainConfig, example: str, pooling: Pooling | None) -> list[str]:
    """How to ask the model, and what Transformers' pipeline does otherwise than the training."""
    pipeline = f"```python\nfrom transformers import pipeline\n\n{example}\n```"
    ours = (
        "```python\nfrom model.prediction import predict  # of Bertune\n\n"
        'predict("path/to/this/folder", ["some text"])\n```'
    )
    if pooling is not None:
        told = (
            f"The classifier reads the {pooling} of all tokens, which no class of Transformers "
            "does for this architecture, so Transformers refuses to load this folder. Bertune "
            "predicts as it did in training:"
        )
        return [told, ours]
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
    return "The most frequent confusions:\n\n" + _table(("true", "predicted", matrix.unit), pairs)


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
    escaped = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _number(value: float) -> str:
    return f"{value:.4f}"
