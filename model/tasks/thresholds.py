"""From how probable a class is to whether it is said: a threshold per class."""

import numpy as np
import numpy.typing as npt

UNTUNED = 0.5


def best_thresholds(
    true: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """[labels] the threshold at which each class's F1 is highest; both arrays are [rows, labels].

    A class is said from its threshold on. It stands halfway between two neighbouring
    probabilities, so that rounding changes no prediction; of equally good ones the nearest to 0.5
    is taken, then the higher. A class that no row has keeps 0.5.
    """
    columns = range(true.shape[1])
    return np.array([_best(true[:, k], probabilities[:, k]) for k in columns], dtype=np.float64)


def _best(true: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float32]) -> float:
    if not true.any():
        return UNTUNED
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    found = np.cumsum(true[order])
    said = np.arange(1, len(ranked) + 1)
    ends = np.append(ranked[1:] < ranked[:-1], True)  # equal probabilities are said together
    f1 = (2 * found / (said + true.sum()))[ends]
    lower = np.append(ranked[1:], 0.0)
    between = ((ranked + lower) / 2)[ends]
    best = np.flatnonzero(f1 == f1.max())
    nearest = min(best, key=lambda k: (abs(between[k] - UNTUNED), -between[k]))
    return float(between[nearest])
