"""A model card tells the whole confusion matrix, also of many classes."""

import csv
import re

import numpy as np
import pytest

from model import model_card
from model.config import TrainConfig
from model.metrics import Evaluation, Matrix

LABELS = (*(f"class {k}" for k in range(28)), 'a "quoted", one', "the\nlast")


def card_of(counts: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> str:
    matrix = Matrix("classes", "rows", LABELS, counts)
    best = Evaluation("single_label", LABELS, {"accuracy": 0.5}, (), (matrix,), None)
    return model_card.model_card(TrainConfig(), best, 0, "cafe01", {}, epochs=1)


def cells_of(card: str) -> list[list[str]]:
    (block,) = re.findall(r"^`{6}csv\n(.*?)^`{6}$", card, flags=re.DOTALL | re.MULTILINE)
    return list(csv.reader(block.splitlines(keepends=True)))


def test_the_matrix_of_many_classes_can_be_read_back() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (30, 30)) * (rng.random((30, 30)) < 0.1)
    card = card_of(counts)
    header, *cells = cells_of(card)
    assert header == ["true", "predicted", "rows"]
    found = np.zeros_like(counts)
    for true, predicted, count in cells:
        found[LABELS.index(true), LABELS.index(predicted)] = int(count)
    assert found.tolist() == counts.tolist()
    assert "All cells that are not 0" in card


def test_of_very_many_cells_the_largest_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_card, "MOST_CELLS", 3)
    counts = np.zeros((30, 30), dtype=np.int64)
    counts[0, :5] = [1, 7, 2, 9, 8]
    card = card_of(counts)
    assert [row[2] for row in cells_of(card)[1:]] == ["7", "9", "8"]
    assert "The largest cells" in card
