"""The README of a saved model: what it is, how good it is, and what it was made with."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from model.config import RULES, SCRATCH_PREFIX, TrainConfig
from model.metrics import Evaluation, confused_pairs

MATRIX_CLASSES = 20
"""With more classes than this a full matrix is unreadable; the largest confusions are listed."""


def model_card(config: TrainConfig, best: Evaluation, best_epoch: int, dataset_key: str) -> str:
    """Markdown. All figures are of the validation split at the best epoch (0-based)."""
    settings = {name: getattr(config, name) for name in RULES} | {"seed": config.seed}
    if config.dropout is None:
        settings["dropout"] = "the base model's own"
    per_class = (
        [c.label, _number(c.precision), _number(c.recall), _number(c.f1), c.support]
        for c in best.per_class
    )
    versions = ((name, version(name)) for name in ("torch", "transformers", "tokenizers"))
    sections = [
        "---\nlibrary_name: transformers\npipeline_tag: text-classification\n---",
        f"# {_base_name(config.model)} classifier over {len(best.labels)} labels",
        f"Trained from `{_base_name(config.model)}` on data set `{dataset_key}`. The weights are "
        f"those of epoch {best_epoch + 1} of {config.epochs}, the best by validation "
        f"{config.metric}.",
        "```python\nfrom transformers import pipeline\n\n"
        'classify = pipeline("text-classification", "path/to/this/folder")\n'
        'classify("some text", truncation=True)\n```',
        "## Validation metrics",
        _table(("metric", "value"), ((k, _number(v)) for k, v in best.metrics.items())),
        "## Per class",
        _table(("label", "precision", "recall", "f1", "rows"), per_class),
        "## Confusion",
        _confusion(best),
        "## Settings",
        _table(("setting", "value"), settings.items()),
        "## Versions",
        _table(("package", "version"), versions),
    ]
    return "\n\n".join(sections) + "\n"


def _base_name(model: str) -> str:
    """A folder's own name: where it stands on the training machine is nobody's business."""
    return model if model.startswith(SCRATCH_PREFIX) else Path(model).name


def _confusion(best: Evaluation) -> str:
    if len(best.labels) <= MATRIX_CLASSES:
        rows = ([label, *row] for label, row in zip(best.labels, best.confusion, strict=True))
        return _table(("true \\ predicted", *best.labels), rows)
    pairs = confused_pairs(best, most=MATRIX_CLASSES)
    return "The most frequent confusions:\n\n" + _table(("true", "predicted", "rows"), pairs)


def _table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[object]) -> str:
    escaped = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _number(value: float) -> str:
    return f"{value:.4f}"
