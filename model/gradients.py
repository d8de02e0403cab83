"""The loss of a batch and its gradients."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model.batches import Positions
from model.classifier import Classifier
from model.config import ClassWeighting
from model.memory import PartSize, run_in_parts
from model.trial_data import LabelledSplit


class BatchGradients:
    """Adds a batch's gradients to the network's, in as many parts as memory needs.

    The loss is the mean cross-entropy over the whole batch, weighted by class and smoothed as
    asked; each part's share is divided by the whole batch's weight, so the sum of the parts'
    gradients is the gradient of the batch.
    """

    def __init__(
        self,
        classifier: Classifier,
        split: LabelledSplit,
        *,
        labels: int,
        weighting: ClassWeighting,
        smoothing: float,
    ) -> None:
        self._classifier = classifier
        self._split = split
        self._lengths = split.sequences.lengths
        self._smoothing = smoothing
        weights = class_weights(split.label_ids, labels, weighting)
        self._row_weights = weights[split.label_ids]
        self._class_weights = torch.from_numpy(weights).to(classifier.device)
        self.part_size = PartSize()

    def add(self, positions: Positions) -> torch.Tensor:
        """Return the batch's loss, a scalar on the device. The gradients must be clear before."""
        batch_weight = float(self._row_weights[positions].sum(dtype=np.float64))
        shares = run_in_parts(
            lambda part: self._add_share(part, batch_weight),
            positions,
            self._lengths,
            self.part_size,
            undo=self._classifier.network.zero_grad,
        )
        return torch.stack(shares).sum()

    def _add_share(self, part: Positions, batch_weight: float) -> torch.Tensor:
        targets = torch.from_numpy(self._split.label_ids[part]).to(self._classifier.device)
        loss = functional.cross_entropy(
            self._classifier.logits(self._split.sequences, part),
            targets,
            self._class_weights,
            reduction="sum",
            label_smoothing=self._smoothing,
        )
        share = loss / batch_weight
        share.backward()
        return share.detach()


def class_weights(
    label_ids: npt.NDArray[np.int64], labels: int, weighting: ClassWeighting
) -> npt.NDArray[np.float32]:
    """[labels] weights in the loss: all 1, or `inverse`: rows / (classes · rows of the class).

    So with `inverse` every class weighs the same in an epoch, and the mean weight of a row is 1.
    A class without rows gets 0.
    """
    if weighting == "none":
        return np.ones(labels, dtype=np.float32)
    counts = np.bincount(label_ids, minlength=labels)
    present = counts > 0
    weights = np.zeros(labels, dtype=np.float32)
    weights[present] = len(label_ids) / (present.sum() * counts[present])
    return weights
