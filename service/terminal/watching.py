"""Follows a study until it ends: a live table in a terminal, a line per change elsewhere."""

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from service.failure_text import brief
from service.terminal.live_table import live_view
from service.terminal.views import (
    all_trials_done,
    duration_text,
    params_text,
    pause_text,
    plain,
)
from studies.api import Api
from studies.states import TRIAL_ENDED
from studies.wire.studies import StudyAnswer
from studies.wire.trials import TrialRow

STILL_S = 60.0
"""Without a terminal, so long after the last line comes one on how the trials at work stand."""
NAMED = 3
"""How many trials that line names."""


def watch(
    client: Api, study_id: str, console: Console, timeout_s: float | None = None
) -> StudyAnswer:
    """Show progress until the study has ended, and return it.

    Raises `WaitTimeoutError` after ``timeout_s`` and `KeyboardInterrupt` on Ctrl-C; the study
    itself goes on.
    """
    if console.is_terminal:
        return _watch_live(client, study_id, console, timeout_s)
    return _watch_lines(client, study_id, console, timeout_s)


class TrialsSeen:
    """The trials of a study as they stand at each look.

    Those that do not run are asked for only when one more has begun or ended: there may be
    thousands.
    """

    def __init__(self, client: Api, study_id: str) -> None:
        self._client = client
        self._study_id = study_id
        self._rows: dict[int, TrialRow] = {}
        self._counts: object = None

    def at(self, study: StudyAnswer) -> list[TrialRow]:
        """All trials by number; ``study`` was read just before."""
        if study.trials != self._counts:
            self._counts = study.trials
            self._read_all()
        elif study.trials.running and not self._follow_running():
            self._read_all()
        return [self._rows[number] for number in sorted(self._rows)]

    def _read_all(self) -> None:
        self._rows = {row.number: row for row in self._client.trials(self._study_id)}

    def _follow_running(self) -> bool:
        """Whether those that run are still the same ones."""
        running = self._client.trials(self._study_id, state="running")
        before = {number for number, row in self._rows.items() if row.state == "running"}
        self._rows.update((row.number, row) for row in running)
        return before == {row.number for row in running}


def change_lines(
    before: Mapping[int, TrialRow], after: Sequence[TrialRow], study: StudyAnswer
) -> list[str]:
    """A line for each trial that started or ended since ``before``; one that did both gets two."""
    metric = study.objective["metric"]
    lines: list[str] = []
    for trial in after:
        old = before.get(trial.number)
        if _begun(trial) > (_begun(old) if old else 0):
            again = f" again (attempt {trial.attempt})" if trial.attempt > 1 else ""
            lines.append(f"trial {trial.number} started{again}  {params_text(trial.params)}")
        if trial.state in TRIAL_ENDED and trial.state != (old.state if old else None):
            lines.append(f"trial {trial.number} {trial.state}  {_outcome(trial, metric)}".rstrip())
    return lines


def still_line(trials: Sequence[TrialRow]) -> str:
    """How the trials at work stand; those furthest on are named. Empty when none is."""
    running = [trial for trial in trials if trial.progress is not None]
    running.sort(key=lambda trial: (-_share(trial), trial.number))
    said = [_standing(trial) for trial in running[:NAMED]]
    if len(running) > NAMED:
        said.append(f"{len(running) - NAMED} more are running")
    return ", ".join(said)


def study_lines(before: StudyAnswer | None, after: StudyAnswer) -> list[str]:
    """A line for what people did to the study since ``before``: pause, resume, extend."""
    lines = []
    if after.pause and (before is None or _pause(before) != _pause(after)):
        lines.append(f"paused: {pause_text(after)}")
    if before and before.state == "paused" and after.state in ("queued", "running"):
        lines.append("resumed")
    if before and after.progress.total > before.progress.total:
        lines.append(f"extended to {after.progress.total} trials")
    return lines


def _pause(study: StudyAnswer) -> tuple[str | None, bool]:
    """What the line of a pause depends on."""
    return study.pause, all_trials_done(study)


def _begun(trial: TrialRow) -> int:
    """The attempt that trains or did; a trial just claimed has no parameters for a moment."""
    return trial.attempt if trial.params is not None else 0


def _outcome(trial: TrialRow, metric: str) -> str:
    if trial.error is not None:
        return f"{trial.error.code}: {brief(trial.error.detail)}"
    return "" if trial.value is None else f"{metric} {trial.value:.4f}"


def _share(trial: TrialRow) -> float:
    return 0.0 if trial.progress is None else trial.progress.share


def _standing(trial: TrialRow) -> str:
    progress = trial.progress
    assert progress is not None
    stage = "running" if progress.stage is None else progress.stage.name
    epochs = "" if progress.epochs is None else f" epoch {progress.epoch + 1} of {progress.epochs}"
    return f"trial {trial.number} {stage}{epochs} ({progress.share:.0%})"


def _watch_lines(
    client: Api, study_id: str, console: Console, timeout_s: float | None
) -> StudyAnswer:
    lines = WatchLines(TrialsSeen(client, study_id), lambda line: console.print(line))
    return client.wait(study_id, timeout_s, on_look=lines.look)


class WatchLines:
    """Says each change once, and now and then how the trials at work stand."""

    def __init__(
        self,
        trials: TrialsSeen,
        say: Callable[[Text], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trials = trials
        self._say = say
        self._clock = clock
        self._seen: dict[int, TrialRow] = {}
        self._last: StudyAnswer | None = None
        self._said_s = clock()

    def look(self, study: StudyAnswer) -> None:
        trials = self._trials.at(study)
        lines = study_lines(self._last, study) + change_lines(self._seen, trials, study)
        self._last = study
        self._seen = {trial.number: trial for trial in trials}
        if not lines and self._clock() >= self._said_s + STILL_S:
            lines = [line for line in [still_line(trials)] if line]
        if lines:
            self._said_s = self._clock()
            for line in lines:
                self._say(plain(line))
            self._say(Text(f"  {_progress(study)}", style="dim"))


def _watch_live(
    client: Api, study_id: str, console: Console, timeout_s: float | None
) -> StudyAnswer:
    trials = TrialsSeen(client, study_id)
    with Live(console=console, refresh_per_second=4) as live:

        def show(study: StudyAnswer) -> None:
            size = console.size
            view = live_view(
                study,
                trials.at(study),
                _progress(study),
                study_lines(None, study),
                width=size.width,
                height=size.height,
            )
            live.update(view)

        return client.wait(study_id, timeout_s, on_look=show)


def _progress(study: StudyAnswer) -> str:
    parts = [f"{study.progress.done} of {study.progress.total} trials done"]
    if study.best:
        parts.append(f"best {study.objective['metric']} {study.best.value:.4f}")
    if all_trials_done(study) and study.state == "running":
        parts.append("scoring the best on the test split")
    elif study.progress.eta_s:
        parts.append(f"about {duration_text(study.progress.eta_s)} left")
    if study.trials.running == 0 and study.trials.queued and study.state in ("queued", "running"):
        parts.append("waiting for a worker")
    if study.pause:
        parts.append("paused")
    return ", ".join(parts)
