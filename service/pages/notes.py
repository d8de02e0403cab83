"""Markdown notes for Optuna's pages: what a trial reached, and where its model goes wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.config import Scalar
from model.markdown import literal
from model.measures import DEFAULT_HEAD
from service.failure_text import brief
from studies.wire.trials import ClassScore

Matrix = Sequence[Sequence[int]]

WHOLE_MATRIX_CLASSES = 12
"""Up to this many classes the whole matrix is a table; beyond, its largest confusions."""
LARGEST_CONFUSIONS = 15
LABEL_CHARS = 40
DETAIL_CHARS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMatrix:
    """The usual confusion matrix of one head, in the order of ``labels``."""

    head: str
    kind: str
    unit: str
    labels: Sequence[str]
    matrix: Matrix
    image_url: str
    """A path on our own server: the pages load no other images."""


def trial_note(
    *,
    number: int,
    metric: str,
    value: float,
    metrics: Mapping[str, float],
    matrices: Sequence[ShownMatrix],
    per_class: Sequence[ClassScore],
) -> str:
    """The note on a trial's page; the page itself shows the parameters. ``matrices`` are the
    validation split's, one for each head."""
    return _paragraphs(
        f"## Trial {number}: {escaped(metric)} {value:.4f}",
        *_score_tables({"validation": metrics}),
        *_confusions(f"trial {number}", matrices),
        class_scores(per_class),
    )


def failure_note(*, number: int, attempts: int, code: str, detail: str) -> str:
    """The note on the page of a trial without a result, which Optuna may show as a pruned one."""
    return _paragraphs(
        f"## Trial {number} failed: {escaped(code)}",
        escaped(brief(detail), DETAIL_CHARS) if detail else "",
        f"Attempts: {attempts}.",
    )


def study_note(
    *,
    metric: str,
    best_number: int,
    value: float,
    params: Mapping[str, Scalar],
    metrics: Mapping[str, float],
    test_metrics: Mapping[str, float] | None,
    matrices: Sequence[ShownMatrix],
    per_class: Sequence[ClassScore],
) -> str:
    """The note on a study's page: its best trial so far, and the test split once it was opened."""
    splits = {"validation": metrics} | ({"test": test_metrics} if test_metrics else {})
    return _paragraphs(
        f"## Best so far: trial {best_number}, {escaped(metric)} {value:.4f}",
        table(tuple(map(escaped, params)), [tuple(map(_scalar, params.values()))]),
        *_score_tables(splits),
        *_confusions(f"trial {best_number}", matrices),
        class_scores(per_class),
    )


def _score_tables(splits: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One table of `scores`; of several heads one more for each, as theirs differ."""
    heads: dict[str, dict[str, dict[str, float]]] = {"": {}}
    for split, metrics in splits.items():
        for name, value in metrics.items():
            head, _, metric = name.rpartition(".")
            row = f"{split}, {escaped(head)}" if head else split
            heads.setdefault(head, {}).setdefault(row, {})[metric] = value
    return [scores(rows) for rows in heads.values() if rows]


def scores(splits: Mapping[str, Mapping[str, float]]) -> str:
    """A table of metrics with a row per split; a metric that a split lacks is a dash."""
    names = list(dict.fromkeys(name for metrics in splits.values() for name in metrics))
    rows = [
        (split, *(f"{metrics[name]:.4f}" if name in metrics else "–" for name in names))
        for split, metrics in splits.items()
    ]
    return table(("split", *map(escaped, names)), rows, numbers=len(names))


def class_scores(per_class: Sequence[ClassScore]) -> str:
    """A table of the classes, worst F1 first when they are too many to show all."""
    shown = list(per_class)
    heading = "### Per class"
    if len(shown) > WHOLE_MATRIX_CLASSES:
        shown = sorted(shown, key=lambda score: score.f1)[:LARGEST_CONFUSIONS]
        heading = f"### The {len(shown)} classes with the lowest F1"
    rows = [
        (
            escaped(score.label if score.head == DEFAULT_HEAD else f"{score.head}.{score.label}"),
            f"{score.precision:.3f}",
            f"{score.recall:.3f}",
            f"{score.f1:.3f}",
            str(score.support),
        )
        for score in shown
    ]
    columns = ("class", "precision", "recall", "F1", "support")
    return f"{heading}\n\n{table(columns, rows, numbers=4)}" if rows else ""


def confusion_table(labels: Sequence[str], matrix: Matrix) -> str:
    """The whole matrix: a row per true label, a column per prediction, zeros as dots."""
    names = [escaped(label) for label in labels]
    rows = []
    for index, counts in enumerate(matrix):
        cells = [str(count) if count else "·" for count in counts]
        cells[index] = f"**{counts[index]}**"
        total = sum(counts)
        recall = f"{counts[index] / total:.0%}" if total else "–"
        rows.append((names[index], *cells, recall))
    return table(("true ↓ predicted →", *names, "recall"), rows, numbers=len(names) + 1)


def largest_confusions(labels: Sequence[str], matrix: Matrix, unit: str = "rows") -> str:
    """The cells off the diagonal with the highest counts; ties in the order of the labels."""
    cells = [
        (count, true, predicted)
        for true, counts in enumerate(matrix)
        for predicted, count in enumerate(counts)
        if count and true != predicted
    ]
    cells.sort(key=lambda cell: (-cell[0], cell[1], cell[2]))
    rows = [
        (
            escaped(labels[true]),
            escaped(labels[predicted]),
            str(count),
            f"{count / sum(matrix[true]):.0%}",
        )
        for count, true, predicted in cells[:LARGEST_CONFUSIONS]
    ]
    if not rows:
        return "Nothing was confused."
    return table(("true", "predicted", unit, "of the class"), rows, numbers=2)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> str:
    """A Markdown table whose last ``numbers`` columns are set to the right.

    The pages draw tables without any padding, so the headings bring a space of their own.
    """
    words = len(columns) - numbers
    heads = [
        f"{name}&emsp;" if at < words else f"&emsp;&emsp;{name}" for at, name in enumerate(columns)
    ]
    rule = [":--"] * words + ["--:"] * numbers
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *rows))


def escaped(text: str, chars: int = LABEL_CHARS) -> str:
    """Text as it stands: no markup, no line breaks, at most ``chars`` characters."""
    line = " ".join(text.split()) or "(empty)"
    if len(line) > chars:
        line = line[: chars - 1] + "…"
    return literal(line)


def _confusions(whose: str, matrices: Sequence[ShownMatrix]) -> list[str]:
    parts = []
    for shown in matrices:
        labels, matrix = shown.labels, shown.matrix
        head = "" if shown.head == DEFAULT_HEAD else f" of {escaped(shown.head)}"
        parts += [
            f"### Confusion matrix{head} (validation, {escaped(shown.kind)}: {shown.unit})",
            f"![Confusion matrix of {whose}: rows are true labels]({shown.image_url})",
            confusion_table(labels, matrix)
            if len(labels) <= WHOLE_MATRIX_CLASSES
            else largest_confusions(labels, matrix, shown.unit),
        ]
    return parts


def _scalar(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escaped(str(value))


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
