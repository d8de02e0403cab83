"""A confusion matrix to look at and to count with: rows are true labels, columns predictions."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from studies.handles.extra import extra
from studies.wire.trials import ConfusionAnswer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Sides = Literal["true", "predicted", "all"]
TABLE_LABELS = 20
"""Up to this many classes a notebook shows the matrix, beyond it what is confused most."""
TABLE_ROWS = 10


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Counts of ``unit`` (rows, tokens, entities, …) in the order of `labels` on both sides."""

    labels: tuple[str, ...]
    matrix: NDArray[np.int64]
    """``(labels, labels)``"""
    title: str
    split: str
    head: str
    kind: str
    unit: str

    @classmethod
    def of(cls, answer: ConfusionAnswer, title: str) -> Self:
        size = len(answer.labels)
        return cls(
            labels=tuple(answer.labels),
            matrix=np.array(answer.matrix, dtype=np.int64).reshape(size, size),
            title=title,
            split=answer.split,
            head=answer.head,
            kind=answer.kind,
            unit=answer.unit,
        )

    def normalised(self, by: Sides = "true") -> NDArray[np.float64]:
        """Shares of each true label's count, of each prediction's, or of all; 0 where nothing was
        counted."""
        axis = {"true": 1, "predicted": 0, "all": None}[by]
        totals = self.matrix.sum(axis=axis, keepdims=True)
        shares: NDArray[np.float64] = self.matrix / np.maximum(totals, 1)
        return shares

    def most_confused(self, count: int = TABLE_ROWS) -> list[tuple[str, str, int]]:
        """The largest cells beside the diagonal, as ``(true, predicted, count)``."""
        wrong = self.matrix.copy()
        np.fill_diagonal(wrong, 0)
        largest = np.argsort(-wrong, axis=None, kind="stable")[:count]
        cells = [divmod(int(cell), len(self.labels)) for cell in largest]
        return [
            (self.labels[true], self.labels[predicted], int(wrong[true, predicted]))
            for true, predicted in cells
            if wrong[true, predicted]
        ]

    def to_frame(self) -> "pd.DataFrame":
        """The counts; the index is ``true``, the columns are ``predicted``."""
        pd = extra("pandas", "Data frames")
        return pd.DataFrame(
            self.matrix,
            index=pd.Index(self.labels, name="true"),
            columns=pd.Index(self.labels, name="predicted"),
        )

    def plot(self, ax: "Axes | None" = None, *, by: Sides = "true") -> "Axes":
        """Draw the shares, with the counts where there is room for them; on a figure of fitting
        size, or on ``ax``. Returns the axes."""
        from studies.handles.confusion_plot import draw

        return draw(self, ax, by)

    def __repr__(self) -> str:
        return f"<{self.title}: {len(self.labels)} labels, {self.matrix.sum()} {self.unit}>"

    def _repr_html_(self) -> str:
        caption = f"{escape(self.title)}: {self.matrix.sum()} {escape(self.unit)}"
        if len(self.labels) <= TABLE_LABELS:
            body = self._table()
        else:
            caption += f", {len(self.labels)} labels; confused most"
            body = _rows(
                [("true", "predicted", self.unit), *self.most_confused()], head=1, shade=None
            )
        return f"<table><caption>{caption}</caption>{body}</table>"

    def _table(self) -> str:
        rows: list[tuple[Any, ...]] = [("true ↓ predicted →", *self.labels)]
        rows += [
            (label, *counts)
            for label, counts in zip(self.labels, self.matrix.tolist(), strict=True)
        ]
        return _rows(rows, head=1, shade=self.normalised())


def _rows(rows: list[tuple[Any, ...]], *, head: int, shade: NDArray[np.float64] | None) -> str:
    """HTML rows, the first ``head`` of them and with ``shade`` each first cell as headings."""
    lines = []
    for i, row in enumerate(rows):
        cells = []
        for j, cell in enumerate(row):
            is_heading = i < head or (shade is not None and j == 0)
            share = 0.0 if is_heading or shade is None else float(shade[i - head, j - 1])
            cells.append(_cell(cell, is_heading, share))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "".join(lines)


def _cell(content: Any, is_heading: bool, share: float) -> str:
    if is_heading:
        return f"<th>{escape(str(content))}</th>"
    # See-through, so that it looks right on light and on dark pages.
    style = f' style="background: rgba(66, 146, 198, {share:.2f})"' if share else ""
    return f"<td{style}>{escape(str(content))}</td>"
