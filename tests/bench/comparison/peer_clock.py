"""Times the runs of a `Trainer` from its callbacks."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback


@dataclass(slots=True)
class Run:
    """One call of `Trainer.train`."""

    started: float
    run_s: float = 0.0
    evaluation_s: float = 0.0
    steps: int = 0
    accuracy: float = 0.0


class PeerClock(TrainerCallback):
    """Collects a `Run` per trial. Work queued on a GPU counts where it was queued."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.runs.append(Run(started=time.perf_counter()))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        run, metrics = self.runs[-1], given["metrics"]
        run.evaluation_s += metrics["eval_runtime"]
        run.accuracy = max(run.accuracy, metrics["eval_accuracy"])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        run = self.runs[-1]
        run.run_s, run.steps = time.perf_counter() - run.started, state.global_step
