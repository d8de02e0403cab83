"""Held-out rows by time: a model learns from the past and is judged by what came after."""

import numpy as np
import numpy.typing as npt

from model.errors import InputError
from model.group_split import SplitOf
from model.splits import check_fractions


def split_dates(
    dates: npt.NDArray[np.int64], *, validation_fraction: float, test_fraction: float
) -> SplitOf:
    """Hold out the latest rows, the very latest as test; rows of one time stay together.

    Shares come as near to the wanted ones as equal times allow. Raises `InputError`
    ``too_few_rows`` for too few different times, ``invalid_value`` for impossible fractions.
    """
    check_fractions(validation_fraction, test_fraction)
    times, time_of, counts = np.unique(dates, return_inverse=True, return_counts=True)
    fractions = {2: test_fraction, 1: validation_fraction}
    needed = 1 + sum(fraction > 0 for fraction in fractions.values())
    if len(times) < needed:
        detail = (
            f"The rows have {len(times)} different dates, and {needed} splits need as many; is "
            "options.date the right column?"
        )
        raise InputError("too_few_rows", detail, ("train",))
    split_of_time = np.zeros(len(times), dtype=np.int8)
    end = len(times)
    for split, fraction in fractions.items():
        needed -= fraction > 0
        if fraction > 0:
            taken = np.cumsum(counts[needed:end][::-1])
            count = 1 + int(np.argmin(np.abs(taken - fraction * len(dates))))
            split_of_time[end - count : end] = split
            end -= count
    return split_of_time[time_of]
