"""Held-out rows where a row has any number of labels: iterative stratification.

Sechidis, Tsoumakas & Vlahavas 2011, "On the Stratification of Multi-Label Data": the rarest label
is shared out first, since later there would be no choice left.
"""

from collections.abc import Sequence

import numpy as np

from model.config import SPLITS
from model.group_split import keep_in_train
from model.splits import SplitRows, check_fractions, held_out_counts, rows_of


def split_label_sets(
    sets: Sequence[Sequence[str]],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> SplitRows:
    """Divide the rows so that every label stands in each split in about its own share.

    As many rows are held out as `held_out_counts` says of all rows together, less those that train
    cannot do without: the only ones left with a label. The same sets, fractions and seed give the
    same rows. Raises `InputError` ``invalid_value`` for impossible fractions.
    """
    check_fractions(validation_fraction, test_fraction)
    (validation,), (test,) = held_out_counts([len(sets)], validation_fraction, test_fraction)
    rooms = np.array([len(sets) - validation - test, validation, test], dtype=np.float64)
    shares = rooms / max(1, len(sets))
    order = np.random.default_rng(seed).permutation(len(sets))
    rows_with: dict[str, list[int]] = {}
    for row in order:
        for label in sorted(set(sets[row])):
            rows_with.setdefault(label, []).append(int(row))
    left = {label: len(rows) for label, rows in sorted(rows_with.items())}
    wanted = {label: count * shares for label, count in left.items()}
    split_of = np.full(len(sets), -1, dtype=np.int8)

    def put(row: int, wishes: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        """Give a row to the split with room that wants it most, then to the emptiest one."""
        choices = [split for split in range(len(SPLITS)) if rooms[split] > 0]
        chosen = max(choices, key=lambda split: (wishes[split], rooms[split], -split))
        split_of[row] = chosen
        rooms[chosen] -= 1
        for label in set(sets[row]):
            wanted[label][chosen] -= 1
            left[label] -= 1

    while open_ := [label for label, count in left.items() if count > 0]:
        rarest = min(open_, key=lambda label: left[label])
        for row in rows_with[rarest]:
            if split_of[row] < 0:
                put(row, wanted[rarest])
    for row in order:
        if split_of[row] < 0:
            put(int(row), rooms)
    return rows_of(keep_in_train(split_of, np.arange(len(sets)), sets))
