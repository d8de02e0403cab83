"""Texts that stand more than once: found by their hashes, so that no text is held in memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.config import DataOptions, Split
from model.split_tally import Hashes, SplitTally, as_array

Mask = npt.NDArray[np.bool_]
EXAMPLES = 5
"""Conflicts that are named, and rows that are named of each."""


def repeats(hashes: Hashes) -> Mask:
    """[rows] Whether the value stood there before."""
    mask = np.ones(len(hashes), dtype=np.bool_)
    mask[np.unique(hashes, return_index=True)[1]] = False
    return mask


def count_duplicates(tallies: dict[Split, SplitTally]) -> dict[Split, int]:
    """Return per split how many rows repeat an earlier row's text."""
    return {
        split: int(repeats(as_array(tally.text_hashes)).sum()) for split, tally in tallies.items()
    }


def count_overlap(tallies: dict[Split, SplitTally], of: str = "text_hashes") -> dict[Split, int]:
    """Return per held-out split how many rows have a text (or a group) of the train split."""
    train = np.unique(as_array(getattr(tallies["train"], of)))
    return {
        split: int(np.isin(as_array(getattr(tally, of)), train).sum())
        for split, tally in tallies.items()
        if split != "train"
    }


def count_test_in_validation(tallies: dict[Split, SplitTally]) -> int:
    """Return how many rows of test have a text of validation."""
    if not {"validation", "test"} <= tallies.keys():
        return 0
    validation, test = (as_array(tallies[split].text_hashes) for split in ("validation", "test"))
    return int(np.isin(test, validation).sum())


@dataclass(frozen=True, slots=True)
class TrainDrops:
    """[train rows] Which leave the train split, and why; no row for two reasons."""

    duplicate: Mask
    held_out: Mask

    @property
    def keep(self) -> Mask:
        return ~(self.duplicate | self.held_out)


def train_drops(tallies: dict[Split, SplitTally], options: DataOptions) -> TrainDrops:
    """Rows that repeat an earlier row whole, and rows whose text stands in another split."""
    train = tallies["train"]
    none = np.zeros(train.rows, dtype=np.bool_)
    if options.duplicates == "keep":
        return TrainDrops(none, none)
    others = [as_array(tally.text_hashes) for split, tally in tallies.items() if split != "train"]
    held_out = np.isin(as_array(train.text_hashes), np.concatenate(others)) if others else none
    return TrainDrops(repeats(as_array(train.row_hashes)) & ~held_out, held_out)


def find_conflicts(tally: SplitTally) -> dict[str, Any]:
    """Texts that stand there with different labels: how many, in how many rows, and the row
    numbers of the first few."""
    texts, rows = as_array(tally.text_hashes), as_array(tally.row_hashes)
    order = np.lexsort((rows, texts))
    same_text = texts[order][1:] == texts[order][:-1]
    other_label = rows[order][1:] != rows[order][:-1]
    conflicting = np.unique(texts[order][1:][same_text & other_label])
    positions = np.flatnonzero(np.isin(texts, conflicting))
    first = list(dict.fromkeys(texts[positions].tolist()))[:EXAMPLES]
    numbers = as_array(tally.numbers)
    examples = [numbers[positions[texts[positions] == text]][:EXAMPLES].tolist() for text in first]
    return {"texts": len(conflicting), "rows": len(positions), "examples": examples}
