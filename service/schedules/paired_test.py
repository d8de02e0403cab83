"""Which of two classifiers is better, told from their answers to the same questions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class PairedTest:
    """McNemar's test on the rows that both answered."""

    rows: int
    only_new_right: int
    only_old_right: int
    p_value: float
    """Exact and two-sided."""

    def is_better(self, alpha: float) -> bool:
        """Whether the new one is, at this level."""
        return self.only_new_right > self.only_old_right and self.p_value <= alpha


def paired_test(new: Mapping[Row, bool], old: Mapping[Row, bool]) -> PairedTest:
    """Compare two mappings from a row to whether it was answered rightly.

    Where both are right or both wrong a row says nothing of the difference; were the two equally
    good, each of the others would fall to either side like a coin (McNemar 1947; the exact form
    is the binomial test).
    """
    from scipy.stats import binomtest  # takes a second to load, and is seldom needed

    shared = new.keys() & old.keys()
    only_new = sum(new[row] and not old[row] for row in shared)
    only_old = sum(old[row] and not new[row] for row in shared)
    differing = only_new + only_old
    p_value = float(binomtest(only_new, differing).pvalue) if differing else 1.0
    return PairedTest(len(shared), only_new, only_old, p_value)
