"""What the command line shows of a training run: plain text that fits a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from model.measures import DEFAULT_HEAD, PER_CLASS

if TYPE_CHECKING:
    from model.metrics import Evaluation, Matrix

WIDE_CLASSES = 12
"""With more classes than this the matrix no longer fits; the frequent confusions are listed."""
SHOWN_CONFUSIONS = 15
LABEL_WIDTH = 40


def epoch_line(epoch: int, metrics: Mapping[str, float]) -> str:
    """One line per epoch; ``epoch`` is 0-based, the line counts from 1."""
    figures = "  ".join(f"{name} {metrics[name]:.4g}" for name in metrics)
    return f"epoch {epoch + 1}: {figures}"


def evaluation_report(evaluation: Evaluation) -> str:
    """The overall figures, the figures of every class, and who is taken for whom."""
    overall = [(name, f"{value:.4f}") for name, value in evaluation.metrics.items()]
    per_class = [
        (
            entry.full_name,
            f"{entry.precision:.3f}",
            f"{entry.recall:.3f}",
            f"{entry.f1:.3f}",
            str(entry.support),
        )
        for entry in evaluation.per_class
    ]
    parts = [table(("metric", "value"), overall)]
    if per_class:  # these say what a class's 2×2 matrix says
        parts.append(table(("label", "precision", "recall", "f1", "support"), per_class))
    for matrix in evaluation.matrices:
        if matrix.kind != PER_CLASS:
            title = "" if matrix.head == DEFAULT_HEAD else f"{matrix.full_name}\n"
            parts.append(title + confusion_report(matrix))
    return "\n\n".join(parts)


def confusion_report(matrix: Matrix) -> str:
    """The matrix, rows true and columns predicted, or the frequent confusions of many classes."""
    from model.metrics import confused_pairs

    labels = matrix.labels
    if len(labels) > WIDE_CLASSES:
        pairs = confused_pairs(matrix, most=SHOWN_CONFUSIONS)
        rows = [(true, predicted, str(count)) for true, predicted, count in pairs]
        return table(("true", "taken for", matrix.unit), rows)
    numbered = [f"{index} {label}" for index, label in enumerate(labels, start=1)]
    lines = zip(numbered, matrix.counts.tolist(), strict=True)
    header = ("true \\ predicted", *(str(index + 1) for index in range(len(labels))))
    return table(header, [(name, *map(str, counts)) for name, counts in lines])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned first column, right-aligned others; long cells are cut with an ellipsis."""
    lines = [[_cut(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cut(cell: str) -> str:
    return cell if len(cell) <= LABEL_WIDTH else cell[: LABEL_WIDTH - 1] + "…"
