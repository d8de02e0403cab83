"""A confusion matrix as a Plotly figure, which Optuna's pages draw on the study's page."""

from collections.abc import Sequence
from typing import Any

SHARE_SCALE = [[0.0, "#ffffff"], [0.02, "#deebf7"], [0.5, "#4292c6"], [1.0, "#084594"]]
HEIGHT = 450
"""Pixels of the page's card for a figure; what is taller is cut off."""
MAX_TICKS = 20
"""Up to this many classes the labels stand at the axes and the counts in the cells."""
LABEL_CHARS = 18


def confusion_figure(
    labels: Sequence[str], matrix: Sequence[Sequence[int]], *, title: str, unit: str = "rows"
) -> dict[str, Any]:
    """A heatmap of row shares with true labels downwards; counts in the cells and on hovering.

    Labels are unique and are plain text: what Plotly would read as markup is written out.
    """
    names = [_plain(label) for label in labels]
    heatmap: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [_shares(row) for row in matrix],
        "text": [list(row) for row in matrix],
        "hovertemplate": "true %{y}<br>predicted %{x}<br>"
        f"%{{text}} {unit}, "
        "%{z:.1%} of the class<extra></extra>",
        "colorscale": SHARE_SCALE,
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "showscale": False,
    }
    axis: dict[str, Any] = {"type": "category", "showgrid": False, "automargin": True}
    if len(labels) <= MAX_TICKS:
        heatmap["texttemplate"] = "%{text}"
        shown = [_plain(_short(label)) for label in labels]
        axis |= {"tickmode": "array", "tickvals": names, "ticktext": shown}
    else:
        axis["showticklabels"] = False  # unreadable at this height; hovering names the classes
    return {
        "data": [heatmap],
        "layout": {
            "title": {"text": _plain(title)},
            "xaxis": {**axis, "title": {"text": "predicted"}, "tickangle": -45},
            "yaxis": {**axis, "title": {"text": "true"}, "autorange": "reversed"},
            "margin": {"l": 20, "r": 20, "t": 48, "b": 20},
            "height": HEIGHT,
        },
    }


def _shares(row: Sequence[int]) -> list[float]:
    total = sum(row)
    return [round(count / total, 4) if count else 0 for count in row]


def _short(label: str) -> str:
    return label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 1] + "…"


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
