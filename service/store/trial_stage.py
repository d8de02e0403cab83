"""How far a running trial is: what its worker told last, and what follows from it.

A trial's share of its training is measured in optimizer steps. The pace is taken between the first
and the last word about them within one attempt, so that neither downloads nor an attempt that went
on from a checkpoint distort the time left.
"""

from dataclasses import dataclass
from typing import Any

from model.config import TrainConfig
from service.store.tables import Study, Trial
from studies.wire.leases import Stage

SHORTEST_WAY = 0.02
"""The share of a trial that must be behind it within one attempt before its pace means much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HowFar:
    """Where a running trial stands."""

    finished_epochs: int
    epochs: int | None
    """How many it is to train; None while its parameters are not known."""
    share: float
    """Of its training that is done, from 0 to 1."""
    left_s: float | None
    """Until its training ends, if nothing stops it; None as long as its pace is not known."""
    elapsed_s: float
    """Since the present attempt began."""
    stage: Stage | None


def note_stage(trial: Trial, stage: Stage, *, at_s: float) -> None:
    """Keep what the worker of a running trial is at. ``at_s``: now, by the database's clock."""
    before = trial.stage or {}
    share, pace = before.get("share", 0.0), before.get("pace")
    if stage.name == "training" and stage.total:
        share = min(1.0, stage.done / stage.total)
        pace = pace or [share, at_s]
    trial.stage = {**stage.model_dump(), "share": share, "at_s": at_s, "pace": pace}


def how_far(study: Study, trial: Trial, last_epoch: int | None, *, now_s: float) -> HowFar:
    """``last_epoch``: the last one that the present attempt reported, from 0."""
    finished = 0 if last_epoch is None else last_epoch + 1
    epochs = _planned_epochs(study, trial)
    told = trial.stage or {}
    by_epochs = 0.0 if epochs is None else finished / epochs
    return HowFar(
        finished_epochs=finished,
        epochs=epochs,
        share=min(1.0, max(told.get("share", 0.0), by_epochs)),
        left_s=_left_s(told, now_s),
        elapsed_s=max(0.0, now_s - (trial.leased_since or now_s)),
        stage=_stage(told),
    )


def _planned_epochs(study: Study, trial: Trial) -> int | None:
    if trial.params is None:
        return None
    settings = {"epochs": TrainConfig().epochs, **study.spec["training"], **trial.params}
    return int(settings["epochs"])


def _left_s(told: dict[str, Any], now_s: float) -> float | None:
    if told.get("pace") is None:
        return None
    first_share, first_s = told["pace"]
    way, took_s = told["share"] - first_share, told["at_s"] - first_s
    if way < SHORTEST_WAY or took_s <= 0:
        return None
    left_s = (1 - told["share"]) * took_s / way - (now_s - told["at_s"])
    return max(0.0, float(left_s))


def _stage(told: dict[str, Any]) -> Stage | None:
    if not told:
        return None
    return Stage(**{name: told[name] for name in Stage.model_fields})
