"""A confusion matrix as a Plotly figure, which Optuna's pages draw on the study's page."""

from collections.abc import Sequence
from typing import Any

RIGHT_SCALE = [[0.0, "#ffffff"], [0.02, "#deebf7"], [0.5, "#4292c6"], [1.0, "#084594"]]
MAX_COUNTS = 30
"""Up to this many classes the counts stand in the cells."""


def confusion_figure(
    labels: Sequence[str], matrix: Sequence[Sequence[int]], *, title: str
) -> dict[str, Any]:
    """A heatmap of row shares with true labels downwards; counts in the cells and on hovering.

    Labels are plain text: what Plotly would read as markup is written out.
    """
    names = [_plain(label) for label in labels]
    axis = {"type": "category", "showgrid": False, "automargin": True, "constrain": "domain"}
    heatmap: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [_shares(row) for row in matrix],
        "customdata": [list(row) for row in matrix],
        "hovertemplate": "true %{y}<br>predicted %{x}<br>%{customdata} rows, "
        "%{z:.1%} of the class<extra></extra>",
        "colorscale": RIGHT_SCALE,
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"title": {"text": "share of row"}, "tickformat": ".0%"},
    }
    if len(labels) <= MAX_COUNTS:
        heatmap["texttemplate"] = "%{customdata}"
    return {
        "data": [heatmap],
        "layout": {
            "title": {"text": _plain(title)},
            "xaxis": {**axis, "title": {"text": "predicted"}, "tickangle": -45},
            "yaxis": {**axis, "title": {"text": "true"}, "autorange": "reversed"},
            "height": 520 if len(labels) <= MAX_COUNTS else 900,
        },
    }


def _shares(row: Sequence[int]) -> list[float]:
    total = sum(row)
    return [round(count / total, 4) if total else 0.0 for count in row]


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
