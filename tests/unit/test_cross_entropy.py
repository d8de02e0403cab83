"""Class weights and the focal loss, by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.cross_entropy import class_weights, summed_cross_entropy

COUNTS = np.array([3, 1, 0])


def test_inverse_weights_give_every_class_the_same_share() -> None:
    # rows / (classes present · rows of the class): 4 / (2 · 3), 4 / (2 · 1), absent
    assert class_weights(COUNTS, "inverse") == pytest.approx([4 / 6, 2.0, 0.0])
    assert class_weights(COUNTS, "none").tolist() == [1, 1, 1]


def test_weights_by_effective_number_lie_between_none_and_inverse() -> None:
    # Beta a half: 0.5 / (1 - 1/8) = 4/7 and 0.5 / (1 - 1/2) = 1; a row's mean is 19/28.
    found = class_weights(COUNTS, "effective_number", beta=0.5)
    assert found == pytest.approx([4 / 7 * 28 / 19, 28 / 19, 0.0])
    assert class_weights(COUNTS, "effective_number", beta=0.0)[:2] == pytest.approx([1.0, 1.0])
    near = class_weights(COUNTS, "effective_number", beta=0.999999)
    assert near == pytest.approx(class_weights(COUNTS, "inverse"), rel=1e-4)


def test_focal_loss_counts_what_is_known_little() -> None:
    # Probabilities of the true classes: 3/4 and 1/2.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    targets, weights = torch.tensor([0, 1]), torch.tensor([1.0, 2.0])
    found = summed_cross_entropy(logits, targets, weights, smoothing=0.0, gamma=2.0)
    expected = (1 / 4) ** 2 * math.log(4 / 3) + 2 * (1 / 2) ** 2 * math.log(2)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_gamma_of_nearly_zero_is_cross_entropy(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    weights = torch.tensor([0.5, 1.0, 2.0])
    found = summed_cross_entropy(logits, targets, weights, smoothing=smoothing, gamma=1e-9)
    expected = functional.cross_entropy(
        logits, targets, weights, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(found, expected)
