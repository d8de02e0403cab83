"""When a run's state is saved, and what happens when it cannot be.

A checkpoint is a convenience: failing to write or to use one never ends a run, but it is never
silent either.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.disk import FREE_SPACE, is_disk_full
from model.errors import InputError
from model.run_state import Job, RunState, UnusableStateError, load_state, save_state

log = logging.getLogger(__name__)


def _tell_nobody(finished_epochs: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """Where and how often a run saves its state, and what it goes on from."""

    path: Path
    """Replaced at every save."""
    every_s: float = 60.0
    """Seconds of training from one save to the next, and before the first."""
    resume: Path | None = None
    """A state to go on from. An absent file is none."""
    must_fit: bool = False
    """Whether a state that this run cannot use is an error; else the run begins anew."""
    on_saved: Callable[[int], None] = _tell_nobody
    """Called after the save that a decision asked for, with the number of finished epochs."""
    on_resumed: Callable[[int], None] = _tell_nobody
    """Called before the first epoch is reported again, with the number of finished epochs."""


class Checkpoints:
    """Follows a `CheckpointPlan` through one run; without a plan it does nothing."""

    def __init__(
        self,
        plan: CheckpointPlan | None,
        job: Job,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problems: list[str] = []
        """`code: sentence`, each code once."""
        self._plan = plan
        self._job = job
        self._clock = clock
        self._last_s = clock()

    def load(self) -> RunState | None:
        """The state to go on from; None when there is none that this run may use.

        Raises `InputError` ``other_checkpoint`` where the plan wants one that fits.
        """
        plan = self._plan
        if plan is None or plan.resume is None:
            return None
        try:
            state = load_state(plan.resume, self._job)
        except FileNotFoundError:
            return None
        except (UnusableStateError, OSError) as error:
            if plan.must_fit:
                detail = f"{plan.resume} is no checkpoint of this run: {error}. Choose another."
                raise InputError("other_checkpoint", detail, ("checkpoint",)) from error
            self._note("checkpoint_ignored", f"{plan.resume} was not used: {error}.")
            return None
        plan.on_resumed(state.epoch)
        return state

    def due(self) -> bool:
        """Whether the plan's time since the last save, or the last attempt at one, is over."""
        return self._plan is not None and self._clock() - self._last_s >= self._plan.every_s

    def save(self, state: RunState) -> bool:
        """Whether ``state`` is on the disk now."""
        if self._plan is None:
            return False
        try:
            save_state(self._plan.path, state, self._job)
        except OSError as error:
            if is_disk_full(error):
                self._note("disk_full", f"No checkpoint could be written: {error}. {FREE_SPACE}")
            else:
                self._note("checkpoint_failed", f"No checkpoint could be written: {error}.")
            return False
        finally:
            self._last_s = self._clock()
        return True

    def save_and_tell(self, state: RunState) -> None:
        """Save for the caller that asked for it, and say when it is done."""
        if self._plan is not None and self.save(state):
            self._plan.on_saved(state.epoch)

    def _note(self, code: str, detail: str) -> None:
        log.warning("%s: %s", code, detail)
        if not any(problem.startswith(f"{code}: ") for problem in self.problems):
            self.problems.append(f"{code}: {detail}")
