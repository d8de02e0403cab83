"""Another peer: Ray Tune with Optuna and warm actors, written as its users write it.

    python -m comparison.ray_side SLOTS PLAN.json RECORD.json

So many actors train at once and share the cores, or the GPU. They stay from trial to trial
(`reuse_actors`) and keep their tokens; each trial is a `Trainer` with the tuned peer's settings.
Needs ``pip install 'ray[tune]'``, which no other part of the project does.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
import transformers
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
)

from comparison.peer import Texts, arguments, metrics
from comparison.peer_clock import PeerClock
from comparison.plan import Plan
from comparison.record import StudyRecord, TrialRecord


class WarmTrainer(tune.Trainable):  # type: ignore[misc]
    """An actor: one call of `step` is one trial."""

    def setup(self, config: dict[str, Any], plan_file: str, threads: int, scratch: str) -> None:
        torch.set_num_threads(threads)
        self._plan = Plan.read(Path(plan_file))
        self._tokenizer = AutoTokenizer.from_pretrained(self._plan.model_folder)
        self._texts = Texts(self._plan, self._tokenizer, sort_validation=True)
        self._scratch = Path(scratch)
        self._asked = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._asked = new_config
        return True

    def step(self) -> dict[str, Any]:
        started, clock = time.time(), PeerClock()
        train, validation = self._texts.cut(self._asked["max_length"])
        settings = arguments(self._plan, self._scratch, tuned=True)
        settings.learning_rate = self._asked["learning_rate"]
        settings.per_device_train_batch_size = self._asked["batch_size"]
        transformers.set_seed(self._plan.seed)
        Trainer(
            args=settings,
            model=self._network(),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=DataCollatorWithPadding(self._tokenizer),
            compute_metrics=metrics,
            callbacks=[clock],
        ).train()
        (spent,) = clock.runs
        return {
            "steps": spent.steps,
            "train_s": spent.run_s - spent.evaluation_s,
            "evaluation_s": spent.evaluation_s,
            "started": started,
            "accuracy": spent.accuracy,
            "done": True,
        }

    def _network(self) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(
            self._plan.model_folder,
            num_labels=len(self._texts.labels),
            ignore_mismatched_sizes=True,
        )


class Clock(tune.Callback):  # type: ignore[misc]
    """Hears in the driver when a result is there."""

    def __init__(self) -> None:
        self.ended: list[tuple[float, dict[str, Any]]] = []

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self.ended.append((time.time(), trial.last_result))


def run(plan: Plan, plan_file: Path, folder: Path, *, slots: int) -> StudyRecord:
    """Run the plan's trials, so many times over as Bertune would with so many slots."""
    cores = len(os.sched_getaffinity(0))
    gpu = plan.device == "cuda"
    ray.init(num_cpus=max(cores, slots), num_gpus=int(gpu), include_dashboard=False)
    actor = tune.with_parameters(
        WarmTrainer,
        plan_file=str(plan_file),
        threads=max(1, cores // slots),
        scratch=str(folder / "files"),
    )
    points = [
        {
            # Copies differ a little, as Bertune's do: Ray leaves out points that it had.
            "learning_rate": trial.learning_rate * (1 + 1e-3 * copy),
            "batch_size": trial.batch_size,
            "max_length": trial.max_length,
        }
        for copy in range(plan.copies(slots))
        for trial in plan.case.trials
    ]
    search = OptunaSearch(
        {
            "learning_rate": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True),
            "batch_size": optuna.distributions.CategoricalDistribution(
                sorted({trial.batch_size for trial in plan.case.trials})
            ),
            "max_length": optuna.distributions.IntDistribution(
                4, max(trial.max_length for trial in plan.case.trials)
            ),
        },
        points_to_evaluate=points,
        metric="accuracy",
        mode="max",
    )
    clock, started = Clock(), time.time()
    tune.Tuner(
        tune.with_resources(actor, {"cpu": max(1, cores // slots), "gpu": gpu / slots}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=len(points),
            max_concurrent_trials=slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=plan.case.name,
            storage_path=str(folder),
            verbose=0,
            callbacks=[clock],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    if len(clock.ended) != len(points):
        raise RuntimeError(f"{len(clock.ended)} of {len(points)} trials completed.")
    return StudyRecord(
        search_s=clock.ended[-1][0] - started,
        last_result_at=clock.ended[-1][0],
        trials=_records(clock, started),
        versions={
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "ray": ray.__version__,
        },
    )


def _records(clock: Clock, started: float) -> tuple[TrialRecord, ...]:
    """In the order of their starts, which is that of the plan."""
    in_order = sorted(clock.ended, key=lambda found: float(found[1]["started"]))
    return tuple(
        TrialRecord(
            number=number,
            steps=result["steps"],
            train_s=result["train_s"],
            evaluation_s=result["evaluation_s"],
            trial_s=ended - result["started"],
            finished_s=ended - started,
            accuracy=result["accuracy"],
        )
        for number, (ended, result) in enumerate(in_order)
    )


def main() -> None:
    slots, plan_file, record = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    # Files of results that nobody reads, and figures for its makers, cost it time.
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    measured = run(Plan.read(plan_file), plan_file, record.with_suffix(".ray"), slots=slots)
    record.write_text(json.dumps(asdict(measured)), encoding="utf-8")


if __name__ == "__main__":
    main()
