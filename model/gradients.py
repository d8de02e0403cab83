"""The loss of a batch and its gradients."""

from collections.abc import Callable
from typing import Any

import torch

from model.batches import Positions
from model.classifier import Classifier
from model.memory import PartSize, run_in_parts
from model.tasks.labelled_split import LabelledSplit
from model.tasks.learning_task import Loss
from model.tokens import Sequences
from model.windows import Windows


class BatchGradients:
    """Adds a batch's gradients to the network's, in as many parts as memory needs.

    The loss is a weighted mean over the whole batch; each part's share is divided by the whole
    batch's weight, so the sum of the parts' gradients is the gradient of the batch.
    """

    def __init__(
        self,
        classifier: Classifier,
        split: LabelledSplit,
        loss: Loss,
        *,
        part_rows: int,
        clear: Callable[[], None],
    ) -> None:
        """``part_rows`` is how many rows go through the network at once where memory allows;
        ``clear`` forgets the network's gradients."""
        self._classifier = classifier
        self._clear = clear
        self._loss = loss
        self.part_size = PartSize(part_rows)
        self.read(split.sequences)

    def read(self, sequences: Sequences | Windows) -> None:
        """Take the rows' tokens from ``sequences`` from now on."""
        self._sequences = sequences
        self._lengths = sequences.lengths

    def add(self, positions: Positions) -> torch.Tensor:
        """Return the batch's loss, a scalar on the device. The gradients must be clear before."""
        batch_weight = self._loss.weight(positions)
        shares = run_in_parts(
            lambda part: self._add_share(part, batch_weight),
            positions,
            self._lengths,
            self.part_size,
            undo=self._clear,
        )
        return torch.stack(shares).sum()

    def _add_share(self, part: Positions, batch_weight: Any) -> torch.Tensor:
        logits = self._classifier.logits(self._sequences, part)
        share = self._loss.share(logits, part, batch_weight)
        share.backward()
        return share.detach()
