"""The training loop: one configuration, from base weights to the best epoch's model.

`train` knows nothing of services, databases or environments. Progress leaves through ``on_epoch``,
whose answer may end the run; ``should_stop`` ends it between two optimizer steps; a
`CheckpointPlan` lets a later run go on where this one stood.
"""

import copy
from collections.abc import Callable

import torch

from model.checkpoints import CheckpointPlan, Checkpoints
from model.config import TrainConfig
from model.devices import (
    device_errors_named,
    device_name,
    fast_matrix_products,
    resolve_precision,
)
from model.errors import InputError
from model.evaluation import evaluate
from model.export import TrainedModel
from model.job import describe_job
from model.measures import metrics_of
from model.memory import memory_errors_named
from model.metrics import ClassMetrics, Evaluation
from model.progress import OnProgress, unheard
from model.randomness import reproducible
from model.run_state import BestEpoch
from model.tasks.catalogue import TASKS
from model.tasks.learning_task import FACTS, TEXTS
from model.train_result import Decision, EpochReport, State, Stop, TrainResult
from model.training_cache import TrainingCache
from model.training_run import TrainingRun
from model.trial_data import Material, TrainData, prepare

__all__ = [
    "CheckpointPlan",
    "ClassMetrics",
    "Decision",
    "EpochReport",
    "Evaluation",
    "Stop",
    "TrainData",
    "TrainResult",
    "TrainingCache",
    "evaluate",
    "train",
]

OnEpoch = Callable[[EpochReport], Decision]
ShouldStop = Callable[[], Stop]


def train(
    config: TrainConfig,
    data: TrainData,
    *,
    device: torch.device,
    on_epoch: OnEpoch,
    should_stop: ShouldStop = lambda: "no",
    on_progress: OnProgress = unheard,
    cache: TrainingCache | None = None,
    checkpoint: CheckpointPlan | None = None,
) -> TrainResult:
    """Train ``config`` on ``data``; the best validation epoch is kept, ties to the earlier one.

    ``on_epoch`` is called after every epoch's validation, ``should_stop`` before every optimizer
    step, and ``on_progress`` after every batch of whatever the run is at. A run that goes on from
    a checkpoint first hands the epochs in it to ``on_epoch`` again, in order, so that its caller
    hears of every epoch of the run; on the CPU it ends with the same bits as a run that was never
    interrupted. What the answers say counts at the last of those epochs, where the run stands: told
    to ``stop``, it hands back what the checkpoint held; told to ``save``, it saves the state as it
    is, which may be some steps further on.

    Raises `TrainingError` (`nan_loss`, `out_of_memory`, `gpu_lost`) and `InputError` (a model
    folder that cannot be used, ``max_length`` beyond the model's positions, ``other_checkpoint``).
    """
    _check_config(config)
    material = prepare(config, data, cache or TrainingCache(0), on_progress)
    precision = resolve_precision(config.precision, device)
    job = {}
    if checkpoint is not None:
        job = describe_job(config, data, material.tokenizer, device=device, precision=precision)
    checkpoints = Checkpoints(checkpoint, job)
    with (
        reproducible(config.seed, device),
        device_errors_named(),
        memory_errors_named(),
        fast_matrix_products(device),
    ):
        run = TrainingRun(
            config, material, device=device, precision=precision, on_progress=on_progress
        )
        resumed_from_epoch = _resume(run, checkpoints)
        state = _train(run, on_epoch, should_stop, checkpoints)

    best = run.best
    return TrainResult(
        state=state,
        epochs=tuple(run.reports),
        labels=data.labels,
        best_epoch=None if best is None else best.epoch,
        best=None if best is None else best.evaluation,
        value=None if best is None else best.evaluation.metrics[config.metric],
        trained=None if best is None else _trained(run, best, material, config, data),
        truncated_share=material.train.sequences.truncated_rows / len(material.train),
        lost_token_share=material.lost_token_share,
        unknown_share=material.unknown_share,
        steps=run.step,
        stopped_early=run.stopped_early,
        train_seconds=run.train_seconds,
        evaluation_seconds=run.evaluation_seconds,
        device_name=device_name(device),
        precision=precision,
        resumed_from_epoch=resumed_from_epoch,
        problems=tuple(checkpoints.problems),
    )


def _resume(run: TrainingRun, checkpoints: Checkpoints) -> int | None:
    """How many finished epochs a checkpoint brought along; None when there was none to use."""
    state = checkpoints.load()
    if state is None:
        return None
    run.restore(state)
    return state.epoch


def _train(
    run: TrainingRun,
    on_epoch: OnEpoch,
    should_stop: ShouldStop,
    checkpoints: Checkpoints,
) -> State:
    """Drive ``run`` to its last epoch, or until the caller ends it."""

    def goes_on(report: EpochReport) -> bool:
        """Report an epoch and do what the answer says of where the run stands."""
        decision, latest = on_epoch(report), report.epoch == run.epoch - 1
        if decision == "save" and latest:
            checkpoints.save_and_tell(run.state())
        if decision != "stop":
            return True
        stop = should_stop()
        if stop == "after_saving":
            checkpoints.save(run.state())
        return stop == "no" and not latest

    for report in tuple(run.reports):  # the epochs that a checkpoint brought along
        if not goes_on(report):
            return "stopped"
    while not run.finished:
        for positions in run.remaining_batches():
            stop = should_stop()
            if stop == "after_saving" or (stop == "no" and checkpoints.due()):
                checkpoints.save(run.state())
            if stop != "no":
                return "stopped"
            run.learn(positions)
        if not goes_on(run.end_epoch()):
            return "stopped"
    return "completed"


def _check_config(config: TrainConfig) -> None:
    if config.task not in TASKS:
        detail = f"There is no task {config.task}; use {', '.join(TASKS)}."
        raise InputError("unsupported_task", detail, ("task",))
    metrics = metrics_of(config.task, config.heads)
    if config.metric not in metrics:
        known = ", ".join(metrics)
        detail = f"{config.metric!r} is no metric of {config.task}. Known: {known}."
        raise InputError("unknown_metric", detail, ("metric",))


def _trained(
    run: TrainingRun, best: BestEpoch, material: Material, config: TrainConfig, data: TrainData
) -> TrainedModel:
    saved_config = copy.deepcopy(run.network.config)
    facts = run.task.facts(best.evaluation) | {TEXTS: len(material.table.texts)}
    setattr(saved_config, FACTS, facts)
    return TrainedModel(
        config=saved_config,
        head=run.task.head,
        parts=run.task.parts(best.evaluation),
        weights=run.task.to_saved(run.whole_weights(best), run.network),
        tokenizer=material.tokenizer,
        tokenizer_files=material.base.tokenizer_files,
        settings=config,
        dataset_key=data.dataset_key,
    )
