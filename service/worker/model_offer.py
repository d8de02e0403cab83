"""Whether the server wants a trial's model: asked with the report of the last epoch, or at the end.

The last epoch is known beforehand unless something ends the run early, and so is the value it ends
with. Asking with the report saves every trial a call.
"""

from collections.abc import Mapping
from typing import Any

from model.config import TrainConfig
from studies.wire.leases import Action

_RUN = TrainConfig()


class ModelOffer:
    """One run's. ``config``: fields of `model.config.TrainConfig`, which has what is left out."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        run = {"metric": _RUN.metric, "epochs": _RUN.epochs, "direction": _RUN.direction, **config}
        self._metric = str(run["metric"])
        self._epochs = int(run["epochs"])
        self._best = max if run["direction"] == "maximize" else min
        self._value: float | None = None
        self._answered: tuple[float, bool] | None = None

    def value_after(self, epoch: int, metrics: Mapping[str, float]) -> float | None:
        """What the run ends with if ``epoch`` (from 0) is its last, None where it is not."""
        found = metrics.get(self._metric)
        if found is not None:
            self._value = found if self._value is None else self._best(self._value, found)
        return self._value if epoch + 1 == self._epochs else None

    def note(self, value: float, action: Action) -> None:
        """The server's answer to a renewal with ``value``."""
        self._answered = value, action == "keep_model"

    def answer(self, value: float | None) -> bool | None:
        """Whether a model of this value is wanted; None where that was not asked."""
        if self._answered is None or self._answered[0] != value:
            return None
        return self._answered[1]
