"""One training run between two optimizer steps: what it is made of and where it stands.

The loop that drives it is in `model.training`. Whatever a step or an epoch changes is in
`TrainingRun.state` and comes back by `TrainingRun.restore`: that is all there is to resuming.
"""

import math
import time

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel

from model.batches import Positions, training_batches
from model.classifier import Classifier
from model.config import TrainConfig
from model.devices import UsedPrecision
from model.errors import TrainingError
from model.evaluation import evaluate_split
from model.gradients import BatchGradients
from model.metrics import Evaluation
from model.network import build_network
from model.optimization import build_optimizer, decay_alone, learning_rate, warmup_steps
from model.randomness import random_state, restore_random_state
from model.run_state import BestEpoch, RunState, Tensors
from model.train_result import EpochReport
from model.trial_data import Material
from model.used_words import UsedWords

LOSS_CHECK_STEPS = 20
"""Steps between two looks at the loss; on CUDA each look waits for the work in flight."""


class TrainingRun:
    """Must be made and used within `reproducible`, which seeds what it draws from."""

    def __init__(
        self,
        config: TrainConfig,
        material: Material,
        labels: tuple[str, ...],
        *,
        device: torch.device,
        precision: UsedPrecision,
    ) -> None:
        self.network = build_network(material.base, labels, device=device, dropout=config.dropout)
        splits = (material.train, material.validation)
        self._words = UsedWords(self.network, *(split.sequences.ids for split in splits))
        self.epoch = 0
        """Finished epochs."""
        self.step = 0
        """Optimizer steps made."""
        self.best: BestEpoch | None = None
        self.reports: list[EpochReport] = []
        self.evaluation_seconds = 0.0
        """Of this process and of those before the checkpoint that it went on from."""
        self._config = config
        self._labels = labels
        self._device = device
        self._validation = material.validation
        self._lengths = material.train.sequences.lengths
        self._total_steps = config.epochs * math.ceil(len(self._lengths) / config.batch_size)
        self._warmup = warmup_steps(self._total_steps, config.warmup_ratio)
        self._classifier = Classifier(self.network, material.base.max_positions, device, precision)
        self._gradients = BatchGradients(
            self._classifier,
            material.train,
            labels=len(labels),
            weighting=config.class_weighting,
            smoothing=config.label_smoothing,
        )
        self._optimizer = build_optimizer(self.network, config)
        self._shuffler = np.random.default_rng(config.seed)
        self._earlier_s = 0.0
        self._started_s = time.perf_counter()
        self._begin_epoch()

    @property
    def train_seconds(self) -> float:
        """Of this process and of those before the checkpoint that it went on from."""
        return self._earlier_s + time.perf_counter() - self._started_s

    def remaining_batches(self) -> list[Positions]:
        """The batches of the unfinished epoch that were not learned from yet."""
        batches = training_batches(self._lengths, self._config.batch_size, self._shuffler)
        return batches[self._batch :]

    def learn(self, positions: Positions) -> None:
        """One optimizer step on one batch."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self.step)
        self._loss_sum += self._gradients.add(positions) * len(positions)
        clip_grad_norm_(self.network.parameters(), self._config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._batch += 1
        self.step += 1
        if self.step % LOSS_CHECK_STEPS == 0:
            self._check_finite(self._loss_sum.item())

    def end_epoch(self) -> EpochReport:
        """Validate, keep the weights if they are the best so far, and begin the next epoch."""
        train_loss = self._loss_sum.item() / len(self._lengths)
        self._check_finite(train_loss)
        started_s = time.perf_counter()
        evaluation = evaluate_split(self._classifier, self._validation, self._labels)
        self.evaluation_seconds += time.perf_counter() - started_s
        self._check_finite(evaluation.metrics["loss"])
        if self.best is None or _better(evaluation, self.best.evaluation, self._config):
            self.best = BestEpoch(self.epoch, evaluation, _weights_on_cpu(self.network))
        course = {"train_loss": train_loss, "learning_rate": self._rate(self.step - 1)}
        self.reports.append(EpochReport(self.epoch, evaluation.metrics | course))
        self.epoch += 1
        self._begin_epoch()
        return self.reports[-1]

    def whole_weights(self, best: BestEpoch) -> Tensors:
        """The weights of a finished epoch with those words in it that the data does not use."""
        steps = (best.epoch + 1) * self._total_steps // self._config.epochs
        decay = decay_alone(self._config, steps, total_steps=self._total_steps, warmup=self._warmup)
        return self._words.complete(best.weights, decay)

    def state(self) -> RunState:
        """The run as it stands; the tensors are its own and not copies."""
        return RunState(
            epoch=self.epoch,
            batch=self._batch,
            step=self.step,
            loss_sum=self._loss_sum,
            shuffler=self._epoch_shuffler,
            random=random_state(self._device),
            network=self.network.state_dict(),
            optimizer=self._optimizer.state_dict()["state"],
            max_tokens=self._gradients.part_size.max_tokens,
            best=self.best,
            reports=tuple(self.reports),
            train_seconds=self.train_seconds,
            evaluation_seconds=self.evaluation_seconds,
        )

    def restore(self, state: RunState) -> None:
        """Go on as the run that ``state`` was taken from would have; takes over its tensors."""
        self.epoch, self._batch, self.step = state.epoch, state.batch, state.step
        self.best, self.reports = state.best, list(state.reports)
        self.network.load_state_dict(state.network)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        self._loss_sum = state.loss_sum.to(self._device)
        self._gradients.part_size.max_tokens = state.max_tokens
        self._epoch_shuffler = self._shuffler.bit_generator.state = state.shuffler
        self.evaluation_seconds = state.evaluation_seconds
        self._earlier_s, self._started_s = state.train_seconds, time.perf_counter()
        restore_random_state(state.random, self._device)

    def _begin_epoch(self) -> None:
        self.network.train()
        self._batch = 0
        self._loss_sum = torch.zeros((), device=self._device)
        self._epoch_shuffler = self._shuffler.bit_generator.state

    def _rate(self, step: int) -> float:
        return learning_rate(self._config, step, total_steps=self._total_steps, warmup=self._warmup)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                "nan_loss",
                f"The loss was no longer a finite number by step {self.step}: lower "
                "learning_rate or max_grad_norm.",
            )


def _better(new: Evaluation, old: Evaluation, config: TrainConfig) -> bool:
    gain = new.metrics[config.metric] - old.metrics[config.metric]
    return gain > 0 if config.direction == "maximize" else gain < 0


def _weights_on_cpu(network: PreTrainedModel) -> Tensors:
    """A copy: the next step changes the network's own tensors in place."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in network.state_dict().items()}
