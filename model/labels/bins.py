"""Numbers as classes, for matrices and for dividing rows: bins between quantiles.

A bin's name says where it begins and ends, and is all that is kept of it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 5
_BELOW, _FROM = "< ", ">= "


def quantile_bins(values: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """Names of up to five bins that hold about as many of the ``values`` each, in their order.

    Values that are equal stay together, so there may be fewer bins; of values that are all equal
    there is none.
    """
    points = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges = np.unique(points[points > values.min()])
    if not edges.size and values.max() > values.min():
        edges = np.array([values.max()])  # most are the smallest
    if not edges.size:
        return ()
    texts = [_short(edges, digits) for digits in (6, 17)]
    shown = next(text for text in texts if len(set(text)) == len(edges))
    between = [f"[{low}, {high})" for low, high in pairwise(shown)]
    return (f"{_BELOW}{shown[0]}", *between, f"{_FROM}{shown[-1]}")


def _short(edges: npt.NDArray[np.float64], digits: int) -> list[str]:
    return [format(edge, f".{digits}g") for edge in edges]


def bins_of(values: npt.NDArray[Any], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """The position of each value's bin among ``names``, which `quantile_bins` gave."""
    starts = [name.removeprefix(_FROM).removeprefix("[").split(",")[0] for name in names[1:]]
    edges = np.array([float(start) for start in starts])
    return np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="right").astype(
        np.int64
    )
