"""A training run that is stopped within an epoch and goes on from its checkpoint."""

from collections.abc import Callable
from pathlib import Path

from model.training import CheckpointPlan, TrainResult

STEPS_BEFORE = 8
"""As often a run asks whether to stop before it is told to: within the second epoch."""


def whole_and_resumed(
    run: Callable[..., TrainResult], path: Path
) -> tuple[TrainResult, TrainResult]:
    """What came of ``run``, and of ``run`` with a stop in its second epoch, checked to have the
    same weights, bit for bit, and the same metrics.

    ``run`` takes the keywords ``checkpoint`` and ``should_stop`` of `model.training.train`.
    """
    whole = run()
    asked = iter(range(100))
    run(
        checkpoint=CheckpointPlan(path),
        should_stop=lambda: "no" if next(asked) < STEPS_BEFORE else "after_saving",
    )
    resumed = run(checkpoint=CheckpointPlan(path, resume=path))
    assert resumed.resumed_from_epoch == 1
    assert resumed.metrics == whole.metrics
    assert resumed.trained is not None
    assert whole.trained is not None
    for name, tensor in whole.trained.weights.items():
        assert resumed.trained.weights[name].equal(tensor), name
    return whole, resumed
