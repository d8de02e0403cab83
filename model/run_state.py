"""Everything a training run needs to go on exactly where it stood, and the file that holds it.

A run is deterministic in its job, so the state of any attempt serves every other attempt of the
same job, and of no other: the file names its job, and one that does not fit is refused with the
reason.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.metrics import Evaluation
from model.randomness import RandomState
from model.state_file import BrokenFileError, read_tensors, write_tensors
from model.stored_evaluation import evaluation_columns, evaluation_facts, stored_evaluation
from model.train_result import EpochReport

FORMAT = "bertune-run-state-3"
"""To be raised with every change of what the file holds or of what a step does."""

Tensors = dict[str, torch.Tensor]
Job = Mapping[str, Any]
"""What a run computes, as plain JSON values: runs of equal jobs go through equal states."""


class UnusableStateError(ValueError):
    """A state that a run must not go on from; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class BestEpoch:
    """The best epoch so far."""

    epoch: int
    """0-based."""
    evaluation: Evaluation
    weights: Tensors
    """On the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunState:
    """A run between two optimizer steps.

    Its tensors are the run's own, to be written before the next step changes them.
    """

    epoch: int
    """Finished epochs."""
    batch: int
    """Batches of the next epoch that were learned from already."""
    step: int
    """Optimizer steps made."""
    loss_sum: torch.Tensor
    """Of the unfinished epoch, summed over its rows; a scalar."""
    shuffler: Mapping[str, Any]
    """The shuffling generator as the unfinished epoch began: its batches are drawn again."""
    random: RandomState
    network: Tensors
    optimizer: dict[int, Tensors]
    """By the parameter's place in the optimizer."""
    average: Tensors
    """The moving average of the trained weights; empty where none is kept."""
    max_tokens: int | None
    """What was learned about the memory: see `PartSize`."""
    best: BestEpoch | None
    reports: tuple[EpochReport, ...]
    train_seconds: float
    evaluation_seconds: float


def save_state(path: Path, state: RunState, job: Job) -> None:
    """Replace ``path`` atomically. Raises `OSError`, and then the old file stands."""
    facts = {
        "epoch": state.epoch,
        "batch": state.batch,
        "step": state.step,
        "shuffler": dict(state.shuffler),
        "random": state.random.host,
        "max_tokens": state.max_tokens,
        "best": None if state.best is None else _best_facts(state.best),
        "reports": [dataclasses.asdict(report) for report in state.reports],
        "train_seconds": state.train_seconds,
        "evaluation_seconds": state.evaluation_seconds,
    }
    metadata = {
        "format": FORMAT,
        "finished_epochs": str(state.epoch),  # for readers of the header alone
        "job": json.dumps(dict(job)),
        "state": json.dumps(facts),
    }
    write_tensors(path, _tensors(state), metadata)


def load_state(path: Path, job: Job) -> RunState:
    """Read what `save_state` wrote for the same ``job``; all tensors are on the CPU.

    Raises `UnusableStateError` when the file is torn, foreign, of another version or of another
    job, and `OSError` when it cannot be read.
    """
    try:
        tensors, metadata = read_tensors(path)
        if metadata.get("format") != FORMAT:
            raise UnusableStateError("it is of another version of Bertune")
        _check_job(json.loads(metadata["job"]), json.loads(json.dumps(dict(job))))
        return _state(json.loads(metadata["state"]), tensors)
    except BrokenFileError as error:
        raise UnusableStateError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise UnusableStateError(f"it lacks what a run needs ({error!r})") from error


def _check_job(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    names = sorted(found.keys() | wanted.keys())
    other = [name for name in names if found.get(name, ...) != wanted.get(name, ...)]
    if other:
        raise UnusableStateError(f"it belongs to a run with other {', '.join(other)}")


def _best_facts(best: BestEpoch) -> dict[str, Any]:
    return {"epoch": best.epoch, **evaluation_facts(best.evaluation)}


def _tensors(state: RunState) -> Tensors:
    found = {"loss_sum": state.loss_sum, "random/cpu": state.random.cpu}
    if state.random.cuda is not None:
        found["random/cuda"] = state.random.cuda
    found |= _below("network", state.network) | _below("average", state.average)
    for index, moments in state.optimizer.items():
        found |= _below(f"optimizer/{index}", moments)
    if state.best is not None:
        found |= _below("best", state.best.weights)
        columns = evaluation_columns(state.best.evaluation)
        found |= {f"predictions/{name}": torch.from_numpy(x) for name, x in columns.items()}
    return found


def _below(folder: str, tensors: Tensors) -> Tensors:
    return {f"{folder}/{name}": tensor for name, tensor in tensors.items()}


def _within(folder: str, tensors: Tensors) -> Tensors:
    start = f"{folder}/"
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def _state(facts: dict[str, Any], tensors: Tensors) -> RunState:
    return RunState(
        epoch=facts["epoch"],
        batch=facts["batch"],
        step=facts["step"],
        loss_sum=tensors["loss_sum"],
        shuffler=facts["shuffler"],
        random=RandomState(facts["random"], tensors["random/cpu"], tensors.get("random/cuda")),
        network=_within("network", tensors),
        optimizer=_optimizer(_within("optimizer", tensors)),
        average=_within("average", tensors),
        max_tokens=facts["max_tokens"],
        best=None if facts["best"] is None else _best(facts["best"], tensors),
        reports=tuple(EpochReport(**report) for report in facts["reports"]),
        train_seconds=facts["train_seconds"],
        evaluation_seconds=facts["evaluation_seconds"],
    )


def _optimizer(tensors: Tensors) -> dict[int, Tensors]:
    moments: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        index, _, moment = name.partition("/")
        moments.setdefault(int(index), {})[moment] = tensor
    return moments


def _best(facts: dict[str, Any], tensors: Tensors) -> BestEpoch:
    columns = {name: x.numpy() for name, x in _within("predictions", tensors).items()}
    evaluation = stored_evaluation(facts, columns)
    return BestEpoch(facts["epoch"], evaluation, _within("best", tensors))
