"""Ray Tune on trials that train nothing, with actors that stay; needs ``pip install 'ray[tune]'``.

Its study lives in memory and its results in no database, unlike those that it stands beside.
"""

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.schedulers import MedianStoppingRule
from ray.tune.search.optuna import OptunaSearch

SPACE: Mapping[str, optuna.distributions.BaseDistribution] = {
    "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
    "batch_size": optuna.distributions.CategoricalDistribution([8, 16, 32]),
    "max_length": optuna.distributions.IntDistribution(16, 128),
}


class Nothing(tune.Trainable):  # type: ignore[misc]
    """Reports one value ``epochs`` times."""

    def setup(self, config: dict[str, Any], value: float, epochs: int) -> None:
        self._value, self._epochs, self._epoch = value, epochs, 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epoch = 0
        return True

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        return {"accuracy": self._value, "done": self._epoch == self._epochs}


class Ends(tune.Callback):  # type: ignore[misc]
    """When each trial was over for the driver."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self.at.append(time.perf_counter())


def measured_ms(
    *, existing: int, workers: int, trials: int, value: float, epochs: int
) -> list[float]:
    """Milliseconds per trial of the last ``trials``, after ``existing`` others: of several workers
    at once the wall clock of as many trials, shared among them."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    ends = Ends()
    with tempfile.TemporaryDirectory(prefix="ray-overhead-") as folder:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        logging.getLogger("ray.tune").setLevel(logging.ERROR)  # a line for each missing file
        try:
            tune.Tuner(
                tune.with_parameters(Nothing, value=value, epochs=epochs),
                tune_config=tune.TuneConfig(
                    search_alg=OptunaSearch(
                        dict(SPACE),
                        sampler=optuna.samplers.TPESampler(seed=0),
                        metric="accuracy",
                        mode="max",
                    ),
                    scheduler=MedianStoppingRule(metric="accuracy", mode="max"),
                    num_samples=existing + trials,
                    max_concurrent_trials=workers,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=folder,
                    verbose=0,
                    callbacks=[ends],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
        finally:
            ray.shutdown()
    if len(ends.at) != existing + trials:
        raise RuntimeError(f"{len(ends.at)} of {existing + trials} trials completed.")
    last = ends.at[-trials - 1 :]
    return [
        1000 * (after - before) / workers
        for before, after in zip(last[::workers], last[workers::workers], strict=False)
    ]
