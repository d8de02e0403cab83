"""Which rows an epoch learns from when classes are to be seen equally often.

Drawn anew for every epoch from the run's own generator, so equal seeds give equal epochs and a
run that goes on from a checkpoint draws what one that ran through did.
"""

import numpy as np
import numpy.typing as npt

from model.config import Sampling

Ids = npt.NDArray[np.int64]


def class_counts(ids: Ids, labels: int, sampling: Sampling) -> Ids:
    """[labels] rows of each class in an epoch. A class without rows stays without."""
    counts = np.bincount(ids, minlength=labels)
    present = counts > 0
    if sampling == "oversample":
        counts[present] = counts.max()
    elif sampling == "undersample":
        counts[present] = counts[present].min()
    return counts


def epoch_rows(ids: Ids, sampling: Sampling, generator: np.random.Generator) -> Ids:
    """Positions of an epoch's rows, in the order of the split.

    ``oversample``: every class as often as the largest, each of its rows as often as the others or
    once more. ``undersample``: every class as often as the smallest, no row twice.
    """
    if sampling == "none":
        return np.arange(len(ids))
    wanted = class_counts(ids, int(ids.max()) + 1, sampling)
    drawn = [
        _draw(np.flatnonzero(ids == label), int(wanted[label]), generator)
        for label in np.unique(ids)
    ]
    return np.sort(np.concatenate(drawn))


def _draw(rows: Ids, wanted: int, generator: np.random.Generator) -> Ids:
    whole, rest = divmod(wanted, len(rows))
    return np.concatenate([np.tile(rows, whole), generator.permutation(rows)[:rest]])
