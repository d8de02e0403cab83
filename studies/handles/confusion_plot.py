"""Draws a confusion matrix with matplotlib, to be read with 2 classes and with 77."""

from typing import TYPE_CHECKING

from studies.handles.extra import extra

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from studies.handles.confusion import ConfusionMatrix, Sides

SHARE_SCALE = ((0.0, "#ffffff"), (0.02, "#deebf7"), (0.5, "#4292c6"), (1.0, "#084594"))
"""White is nothing at all: a small share of a large class is to be seen."""
MOST_COUNTS = 30
"""With more classes the counts would not be legible."""
LABEL_CHARS = 28
CELL_INCHES = (0.6, 0.22)
"""Of a cell's side, with few classes and with many."""
MANY = 40
FONT_POINTS = (10.0, 6.5)
"""Likewise of labels and counts."""
MARGIN_INCHES = 1.4
"""For titles, beside the labels."""
DARK = 0.5
"""A share from which on a cell's count is written in white."""


def draw(matrix: "ConfusionMatrix", ax: "Axes | None", by: "Sides") -> "Axes":
    """See `ConfusionMatrix.plot`."""
    count = len(matrix.labels)
    names = [_short(label) for label in matrix.labels]
    points = _between(FONT_POINTS, count)
    cell, label = _between(CELL_INCHES, count), max(map(len, names)) * points * 0.6 / 72
    if ax is None:
        side = MARGIN_INCHES + label + count * cell
        _, made = extra("matplotlib.pyplot", "Plots").subplots(
            figsize=(max(side, 4), side), layout="constrained"
        )
        ax = made
    assert ax is not None
    shares = matrix.normalised(by)
    if by == "all":  # the largest cell is dark, however many there are
        shares = shares / max(shares.max(), 1e-9)
    colours = extra("matplotlib.colors", "Plots").LinearSegmentedColormap
    ax.imshow(shares, cmap=colours.from_list("shares", SHARE_SCALE), vmin=0, vmax=1)
    ax.set_xticks(range(count), names, rotation=0 if label < cell else 90, fontsize=points)
    ax.set_yticks(range(count), names, fontsize=points)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(_plain(matrix.title), fontsize=10, wrap=True)
    if count <= MOST_COUNTS:
        _write_counts(matrix, shares, ax, points)
    return ax


def _write_counts(
    matrix: "ConfusionMatrix", shares: "NDArray[np.float64]", ax: "Axes", points: float
) -> None:
    for true, row in enumerate(matrix.matrix.tolist()):
        for predicted, number in enumerate(row):
            if number:
                colour = "white" if shares[true, predicted] > DARK else "black"
                ax.text(
                    predicted,
                    true,
                    str(number),
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=points,
                )


def _between(few_and_many: tuple[float, float], count: int) -> float:
    """From the one to the other as classes become many."""
    few, many = few_and_many
    return many + (few - many) * max(0.0, 1 - count / MANY)


def _short(label: str) -> str:
    return _plain(label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 1] + "…")


def _plain(text: str) -> str:
    """``text`` with nothing that matplotlib would set as mathematics."""
    return text.replace("$", r"\$")
