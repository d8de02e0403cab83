"""Held-out rows where some rows belong together: no group stands in two splits.

Groups are shared out greedily, the largest first, each to the split that lacks most of what it
holds, so that shares and classes come as near to the wanted ones as the groups allow.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.config import SPLITS
from model.splits import check_fractions

SplitOf = npt.NDArray[np.int8]
"""[rows] The split of each row as a position in `SPLITS`."""
_TRAIN = 0


def split_groups(
    groups: npt.NDArray[np.uint64],
    kinds: Sequence[Sequence[str]],
    *,
    needed: Sequence[Sequence[str]],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> SplitOf:
    """Divide rows by their ``groups``; ``kinds`` are what every split should have of each row, and
    ``needed`` what train must have.

    The same arguments give the same rows. A split may stay empty where there are too few groups.
    Raises `InputError` ``invalid_value`` for impossible fractions.
    """
    check_fractions(validation_fraction, test_fraction)
    shares = (1 - validation_fraction - test_fraction, validation_fraction, test_fraction)
    ids, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    holds = _kinds_of_groups(group_of, kinds, len(ids))
    totals = Counter(kind for held in holds for kind in held.elements())
    wanted = [{kind: count * share for kind, count in totals.items()} for share in shares]
    left = [dict(wants) for wants in wanted]
    rooms = [len(groups) * share for share in shares]
    shuffled = np.random.default_rng(seed).permutation(len(ids))
    split_of_group = np.zeros(len(ids), dtype=np.int8)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        held, size = holds[group], int(sizes[group])
        # Half of a group may stand over the edge: then the share is missed by as little as can be.
        open_ = [s for s in range(len(SPLITS)) if shares[s] > 0 and rooms[s] >= size / 2]
        chosen = max(
            open_ or [_TRAIN],
            key=lambda s: (
                sum(n * left[s][kind] / wanted[s][kind] for kind, n in held.items()),
                -s,
            ),
        )
        split_of_group[group] = chosen
        rooms[chosen] -= size
        for kind, count in held.items():
            left[chosen][kind] -= count
    _fill_empty(split_of_group, sizes, shares)
    return keep_in_train(split_of_group[group_of], group_of, needed)


def _kinds_of_groups(
    group_of: npt.NDArray[np.int64], kinds: Sequence[Sequence[str]], groups: int
) -> list[Counter[str]]:
    """What each group holds; a row without a class counts as one of a class of its own kind."""
    holds: list[Counter[str]] = [Counter() for _ in range(groups)]
    for group, held in zip(group_of.tolist(), kinds, strict=True):
        holds[group].update(held or ("",))
    return holds


def _fill_empty(
    split_of_group: SplitOf, sizes: npt.NDArray[np.int64], shares: Sequence[float]
) -> None:
    """Give a wanted split that got no group the smallest of train, unless it is train's last."""
    for split in range(1, len(SPLITS)):
        of_train = np.flatnonzero(split_of_group == _TRAIN)
        if shares[split] > 0 and len(of_train) > 1 and not (split_of_group == split).any():
            split_of_group[of_train[np.argmin(sizes[of_train])]] = split


def keep_in_train(
    split_of: SplitOf, group_of: npt.NDArray[np.int64], kinds: Sequence[Sequence[str]]
) -> SplitOf:
    """Return the splits with every class of ``kinds``, which are those of each row, in train: the
    smallest group that has one comes over."""
    split_of = split_of.copy()
    sizes = np.bincount(group_of)
    here = {kind for k in np.flatnonzero(split_of == _TRAIN).tolist() for kind in kinds[k]}
    for kind in sorted({kind for held in kinds for kind in held} - here):
        if kind not in here:
            rows = [k for k, held in enumerate(kinds) if kind in held]
            group = min((int(group_of[k]) for k in rows), key=lambda g: (sizes[g], g))
            moved = np.flatnonzero(group_of == group)
            split_of[moved] = _TRAIN
            here.update(kind for k in moved.tolist() for kind in kinds[k])
    return split_of
