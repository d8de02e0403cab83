"""Cross-entropy over classes that are not equally frequent, or not equally hard."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model.config import ClassWeighting


def class_weights(
    counts: npt.NDArray[np.int64], weighting: ClassWeighting, beta: float = 0.0
) -> npt.NDArray[np.float32]:
    """[classes] weights in the loss, from the rows of each class in an epoch.

    ``inverse``: one over the rows, so that every class weighs the same in an epoch.
    ``effective_number``: (1 - beta) / (1 - beta^rows) (Cui et al. 2019, "Class-Balanced Loss Based
    on Effective Number of Samples"), which lies between no weights (beta 0) and ``inverse`` (beta
    near 1). The mean weight of a row is 1; a class without rows gets 0.
    """
    weights = np.ones(len(counts))
    if weighting == "none":
        return weights.astype(np.float32)
    present = counts > 0
    rows = counts[present].astype(np.float64)
    weights[present] = 1 / rows if weighting == "inverse" else (1 - beta) / (1 - beta**rows)
    weights[~present] = 0
    return np.asarray(weights * counts.sum() / (weights @ counts), dtype=np.float32)


def summed_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    smoothing: float,
    gamma: float,
) -> torch.Tensor:
    """The loss summed over rows; ``logits`` are [rows, classes], ``targets`` class ids [rows].

    Of every class's share of the target (smoothed as torch does), the log probability counts by
    ``weights`` and by ``(1 - probability) ** gamma``, so that what is known already counts little
    (focal loss: Lin et al. 2017, "Focal Loss for Dense Object Detection"). 0 is cross-entropy.
    """
    if gamma == 0:
        return functional.cross_entropy(
            logits, targets, weights, reduction="sum", label_smoothing=smoothing
        )
    logs = logits.log_softmax(dim=-1)
    target = torch.full_like(logs, smoothing / logs.shape[-1])
    target.scatter_add_(1, targets[:, None], torch.full_like(logs[:, :1], 1 - smoothing))
    return -(weights * target * (1 - logs.exp()).pow(gamma) * logs).sum()
