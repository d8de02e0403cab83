"""How far a run is, told while it goes. Torch-free: who only listens need not load it."""

from collections.abc import Callable
from typing import Literal

RunStage = Literal["tokenizing", "training", "evaluating"]
"""What a run is at: reading its texts, learning, or predicting the rows of a split."""

OnProgress = Callable[[RunStage, int, int], None]
"""``on_progress(stage, done, total)`` counts texts, optimizer steps of the whole run, or rows. It
is called after every batch, so it must be quick."""


def unheard(stage: RunStage, done: int, total: int) -> None:
    """For runs that nobody listens to."""
