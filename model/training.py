"""The training loop: one configuration, from base weights to the best epoch's model.

`train` knows nothing of services, databases or environments. Progress leaves through ``on_epoch``,
whose answer may end the run; ``should_stop`` ends it between two optimizer steps.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel

from model.batches import training_batches
from model.classifier import Classifier
from model.config import METRIC_DIRECTIONS, SUPPORTED_TASKS, TrainConfig
from model.devices import device_name, fast_matrix_products, resolve_precision
from model.errors import InputError, TrainingError
from model.evaluation import evaluate, evaluate_split
from model.export import TrainedModel
from model.gradients import BatchGradients
from model.memory import memory_errors_named
from model.metrics import ClassMetrics, Evaluation, Predictions
from model.network import build_network
from model.optimization import build_optimizer, learning_rate, warmup_steps
from model.randomness import reproducible
from model.train_result import Decision, EpochReport, State, TrainResult
from model.training_cache import TrainingCache
from model.trial_data import Material, TrainData, prepare

__all__ = [
    "ClassMetrics",
    "Decision",
    "EpochReport",
    "Evaluation",
    "Predictions",
    "TrainData",
    "TrainResult",
    "TrainingCache",
    "evaluate",
    "train",
]

LOSS_CHECK_STEPS = 20
"""Steps between two looks at the loss; on CUDA each look waits for the work in flight."""


def train(
    config: TrainConfig,
    data: TrainData,
    *,
    device: torch.device,
    on_epoch: Callable[[EpochReport], Decision],
    should_stop: Callable[[], bool] = lambda: False,
    cache: TrainingCache | None = None,
) -> TrainResult:
    """Train ``config`` on ``data``; the best validation epoch is kept, ties to the earlier one.

    ``on_epoch`` is called after every epoch's validation, ``should_stop`` before every optimizer
    step. Raises `TrainingError` (`nan_loss`, `out_of_memory`) and `InputError` (a model folder
    that cannot be used, ``max_length`` beyond the model's positions).
    """
    _check_config(config)
    material = prepare(config, data, cache or TrainingCache(0))
    lengths = material.train.sequences.lengths
    total_steps = config.epochs * math.ceil(len(lengths) / config.batch_size)
    warmup = warmup_steps(total_steps, config.warmup_ratio)
    precision = resolve_precision(config.precision, device)
    started = time.perf_counter()
    state: State = "completed"
    reports: list[EpochReport] = []
    best: _Best | None = None
    step = 0

    with reproducible(config.seed, device), memory_errors_named(), fast_matrix_products(device):
        network = build_network(material.base, data.labels, device=device, dropout=config.dropout)
        classifier = Classifier(network, material.base.max_positions, device, precision)
        gradients = BatchGradients(
            classifier,
            material.train,
            labels=len(data.labels),
            weighting=config.class_weighting,
            smoothing=config.label_smoothing,
        )
        optimizer = build_optimizer(network, config)
        shuffler = np.random.default_rng(config.seed)

        for epoch in range(config.epochs):
            network.train()
            loss_sum = torch.zeros((), device=device)
            for positions in training_batches(lengths, config.batch_size, shuffler):
                if should_stop():
                    state = "stopped"
                    break
                rate = learning_rate(config, step, total_steps=total_steps, warmup=warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss_sum += gradients.add(positions) * len(positions)
                clip_grad_norm_(network.parameters(), config.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                step += 1
                if step % LOSS_CHECK_STEPS == 0:
                    _check_finite(loss_sum.item(), step)
            if state == "stopped":
                break

            train_loss = loss_sum.item() / len(lengths)
            _check_finite(train_loss, step)
            evaluation = evaluate_split(classifier, material.validation, data.labels)
            _check_finite(evaluation.metrics["loss"], step)
            if best is None or _better(evaluation, best.evaluation, config):
                best = _Best(epoch, evaluation, _weights_on_cpu(network))
            metrics = evaluation.metrics | {"train_loss": train_loss, "learning_rate": rate}
            reports.append(EpochReport(epoch, metrics))
            if on_epoch(reports[-1]) == "stop":
                state = "stopped"
                break

    return TrainResult(
        state=state,
        epochs=tuple(reports),
        labels=data.labels,
        best_epoch=None if best is None else best.epoch,
        best=None if best is None else best.evaluation,
        value=None if best is None else best.evaluation.metrics[config.metric],
        trained=None if best is None else _trained(network, best, material, config, data),
        truncated_share=material.train.sequences.truncated_rows / len(lengths),
        steps=step,
        train_seconds=time.perf_counter() - started,
        device_name=device_name(device),
        precision=precision,
    )


@dataclass(frozen=True, slots=True)
class _Best:
    epoch: int
    evaluation: Evaluation
    weights: dict[str, torch.Tensor]


def _better(new: Evaluation, old: Evaluation, config: TrainConfig) -> bool:
    gain = new.metrics[config.metric] - old.metrics[config.metric]
    return gain > 0 if config.direction == "maximize" else gain < 0


def _weights_on_cpu(network: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A copy: the next step changes the network's own tensors in place."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in network.state_dict().items()}


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            "nan_loss",
            f"The loss was no longer a finite number by step {step}: lower learning_rate or "
            "max_grad_norm.",
        )


def _check_config(config: TrainConfig) -> None:
    if config.task not in SUPPORTED_TASKS:
        detail = f"The task {config.task} is not built yet; use {', '.join(SUPPORTED_TASKS)}."
        raise InputError("unsupported_task", detail, ("task",))
    if config.metric not in METRIC_DIRECTIONS:
        known = ", ".join(METRIC_DIRECTIONS)
        detail = f"{config.metric!r} is no metric of {config.task}. Known: {known}."
        raise InputError("unknown_metric", detail, ("metric",))


def _trained(
    network: PreTrainedModel, best: _Best, material: Material, config: TrainConfig, data: TrainData
) -> TrainedModel:
    return TrainedModel(
        config=network.config,
        weights=best.weights,
        tokenizer=material.tokenizer,
        tokenizer_files=material.base.tokenizer_files,
        settings=config,
        dataset_key=data.dataset_key,
    )
