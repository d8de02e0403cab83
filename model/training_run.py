"""One training run between two optimizer steps: what it is made of and where it stands.

The loop that drives it is in `model.training`. Whatever a step or an epoch changes is in
`TrainingRun.state` and comes back by `TrainingRun.restore`: that is all there is to resuming.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from model.augmentation import Augmentation
from model.averaging import WeightAverage
from model.batches import Positions, training_batches
from model.classifier import Classifier
from model.config import TrainConfig
from model.depth import freeze, rate_shares
from model.devices import UsedPrecision
from model.early_stopping import out_of_patience
from model.errors import TrainingError
from model.evaluation import evaluate_split
from model.gradients import BatchGradients
from model.metrics import Evaluation
from model.network import build_network, start_head
from model.optimization import (
    build_optimizer,
    decay_alone,
    learning_rate,
    set_rate,
    warmup_steps,
)
from model.progress import OnProgress, unheard
from model.randomness import random_state, restore_random_state
from model.recorded_steps import RecordedUpdate, recording_of
from model.run_state import BestEpoch, RunState, Tensors
from model.tokens import Ids
from model.train_result import EpochReport
from model.trial_data import Material
from model.used_words import UsedWords
from model.windows import read_texts

LOSS_CHECK_STEPS = 20
"""Steps between two looks at the loss; on CUDA each look waits for the work in flight."""


class TrainingRun:
    """Must be made and used within `reproducible`, which seeds what it draws from."""

    def __init__(
        self,
        config: TrainConfig,
        material: Material,
        *,
        device: torch.device,
        precision: UsedPrecision,
        on_progress: OnProgress = unheard,
    ) -> None:
        self.task = task = material.task
        self.network = build_network(
            material.base,
            task.head,
            device=device,
            dropout=config.dropout,
            pooling=config.pooling,
        )
        self._augmentation = Augmentation(config, material.tokenizer)
        self._words = UsedWords(self.network, *_texts(material, whole=self._augmentation.on))
        freeze(self.network, config.freeze_layers)
        loss = task.loss(material.train, config, device)
        if (start := loss.start()) is not None:
            start_head(self.network, start)
        self.epoch = 0
        """Finished epochs."""
        self.step = 0
        """Optimizer steps made."""
        self.best: BestEpoch | None = None
        self.reports: list[EpochReport] = []
        self.evaluation_seconds = 0.0
        """Of this process and of those before the checkpoint that it went on from."""
        self._config = config
        self._device = device
        self._on_progress = on_progress
        self._validation = material.validation
        self._train = material.train
        self._table = material.table
        self._epoch_rows = task.epoch_size(self._train, config)
        self._step_rows = config.batch_size * config.gradient_accumulation
        self._epoch_steps = math.ceil(self._epoch_rows / self._step_rows)
        self._total_steps = config.epochs * self._epoch_steps
        if config.max_steps is not None:
            self._total_steps = min(self._total_steps, config.max_steps)
        self._warmup = warmup_steps(self._total_steps, config.warmup_ratio)
        self._recording = recording_of(self.network, config, device, precision)
        self._classifier = Classifier(
            self.network,
            material.base.max_positions,
            device,
            precision,
            recording=self._recording,
        )
        self._optimizer = build_optimizer(self.network, config, device)
        self._update = RecordedUpdate(
            self.network, self._optimizer, config.max_grad_norm, self._recording
        )
        self._gradients = BatchGradients(
            self._classifier,
            material.train,
            loss,
            part_rows=config.batch_size,
            clear=self._update.clear,
        )
        self._average = WeightAverage(self.network, config.ema_decay)
        self._shuffler = np.random.default_rng(config.seed)
        self._earlier_s = 0.0
        self._started_s = time.perf_counter()
        self._begin_epoch()

    @property
    def train_seconds(self) -> float:
        """Of this process and of those before the checkpoint that it went on from."""
        return self._earlier_s + time.perf_counter() - self._started_s

    @property
    def finished(self) -> bool:
        """Whether no epoch is left, whichever of the settings says so."""
        return self.step == self._total_steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether patience ended the run."""
        return out_of_patience(self.reports, self._config)

    def remaining_batches(self) -> list[Positions]:
        """The batches of the unfinished epoch that are still to be learned from."""
        sequences = self._train.sequences
        if self._augmentation.on:
            table = self._augmentation.of_epoch(self._table, self.epoch)
            sequences = read_texts(table, self._config)
        self._gradients.read(sequences)
        rows = self.task.epoch_rows(self._train, self._config, self._shuffler)
        batches = training_batches(sequences.lengths[rows], self._step_rows, self._shuffler)
        left = batches[self._batch :][: self._total_steps - self.step]
        return [rows[batch] for batch in left]

    def learn(self, positions: Positions) -> None:
        """One optimizer step on one batch."""
        set_rate(self._optimizer, self._rate(self.step))
        self._loss_sum += self._gradients.add(positions) * len(positions)
        self._update()
        self._batch += 1
        self.step += 1
        self._average.update(self.step)
        if self.step % LOSS_CHECK_STEPS == 0:
            self._check_finite(self._loss_sum.item())
        self._on_progress("training", self.step, self._total_steps)

    def end_epoch(self) -> EpochReport:
        """Validate, keep the weights if they are the best so far, and begin the next epoch."""
        rows = min(self._batch * self._step_rows, self._epoch_rows)
        train_loss = self._loss_sum.item() / rows
        self._check_finite(train_loss)
        started_s = time.perf_counter()
        with self._average.in_place():
            evaluation = evaluate_split(
                self._classifier, self._validation, self.task, on_progress=self._on_progress
            )
            self._check_finite(evaluation.metrics["loss"])
            if self.best is None or _better(evaluation, self.best.evaluation, self._config):
                self.best = BestEpoch(self.epoch, evaluation, _weights_on_cpu(self.network))
        self.evaluation_seconds += time.perf_counter() - started_s
        course = {"train_loss": train_loss, "learning_rate": self._rate(self.step - 1)}
        self.reports.append(EpochReport(self.epoch, evaluation.metrics | course))
        self.epoch += 1
        self._begin_epoch()
        return self.reports[-1]

    def whole_weights(self, best: BestEpoch) -> Tensors:
        """The weights of a finished epoch with those words in it that the data does not use."""
        steps = min((best.epoch + 1) * self._epoch_steps, self._total_steps)
        words: Any = self.network.get_input_embeddings()
        decay = decay_alone(
            self._config,
            steps,
            total_steps=self._total_steps,
            warmup=self._warmup,
            rate_share=rate_shares(self.network, self._config).get(words.weight, 0.0),
        )
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
            average=self._average.values,
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
        if self._recording is not None and self._recording.halves is not None:
            self._recording.halves.refresh()
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        self._average.restore(state.average)
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


def _texts(material: Material, *, whole: bool) -> Iterator[Ids]:
    """All ids that the network will read; ``whole``: of texts that may lose other words than
    those beyond their length."""
    yield material.train.sequences.ids
    yield material.validation.sequences.ids
    if whole:
        yield from (text.ids for text in material.table.texts)


def _better(new: Evaluation, old: Evaluation, config: TrainConfig) -> bool:
    gain = new.metrics[config.metric] - old.metrics[config.metric]
    return gain > 0 if config.direction == "maximize" else gain < 0


def _weights_on_cpu(network: PreTrainedModel) -> Tensors:
    """A copy: the next step changes the network's own tensors in place."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in network.state_dict().items()}
