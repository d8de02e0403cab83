"""One split as the network sees it: its token sequences and what they are to be predicted as."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.batches import Positions
from model.tokens import Sequences
from model.windows import Windows


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSplit:
    """A split whose rows have one prediction each."""

    sequences: Sequences | Windows
    targets: npt.NDArray[Any]
    """[units, …] in the form of the task."""
    rows: npt.NDArray[np.int64]
    """[rows] 1-based data rows in the source file."""

    def __len__(self) -> int:
        return len(self.rows)

    def units(self, part: Positions) -> Positions:
        """Which units the rows of ``part`` have, in the order in which a task observes them."""
        return part
