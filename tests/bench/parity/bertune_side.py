"""Bertune's side: `model.training`, and the saved folder asked on the test split."""

import tempfile
from pathlib import Path

import torch

from model.config import TrainConfig
from model.training import TrainData, evaluate, train
from parity.cases import Rows
from parity.record import Outcome


def run(config: TrainConfig, rows: Rows, device: torch.device) -> Outcome:
    data = TrainData(
        train=rows.splits["train"],
        validation=rows.splits["validation"],
        labels=rows.labels,
        dataset_key="quality",
    )
    result = train(config, data, device=device, on_epoch=lambda report: "continue")
    assert result.best_epoch is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        result.save(folder)
        tested = evaluate(folder, rows.splits["test"], rows.labels, config, device=device)
    return Outcome(
        best_epoch=result.best_epoch,
        steps=result.steps,
        train_s=result.train_seconds,
        validation=result.predictions,
        test=tested.predictions,
    )
