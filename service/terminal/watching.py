"""Follows a study until it ends: a live table in a terminal, a line per change elsewhere."""

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.failure_text import brief
from service.terminal.views import duration_text, params_text, pause_text, plain, trials_table
from studies.client import Client
from studies.states import TRIAL_ENDED
from studies.wire.studies import StudyAnswer
from studies.wire.trials import TrialRow

MAX_ROWS = 20
BAR_WIDTH = 40


def watch(
    client: Client, study_id: str, console: Console, timeout_s: float | None = None
) -> StudyAnswer:
    """Show progress until the study has ended, and return it.

    Raises `WaitTimeoutError` after ``timeout_s`` and `KeyboardInterrupt` on Ctrl-C; the study
    itself goes on.
    """
    if console.is_terminal:
        return _watch_live(client, study_id, console, timeout_s)
    return _watch_lines(client, study_id, console, timeout_s)


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


def study_lines(before: StudyAnswer | None, after: StudyAnswer) -> list[str]:
    """A line for what people did to the study since ``before``: pause, resume, extend."""
    lines = []
    if after.pause and (before is None or before.pause != after.pause):
        lines.append(f"paused: {pause_text(after)}")
    if before and before.state == "paused" and after.state in ("queued", "running"):
        lines.append("resumed")
    if before and after.progress.total > before.progress.total:
        lines.append(f"extended to {after.progress.total} trials")
    return lines


def _begun(trial: TrialRow) -> int:
    """The attempt that trains or did; a trial just claimed has no parameters for a moment."""
    return trial.attempt if trial.params is not None else 0


def _outcome(trial: TrialRow, metric: str) -> str:
    if trial.error is not None:
        return f"{trial.error.code}: {brief(trial.error.detail)}"
    return "" if trial.value is None else f"{metric} {trial.value:.4f}"


def _watch_lines(
    client: Client, study_id: str, console: Console, timeout_s: float | None
) -> StudyAnswer:
    seen: dict[int, TrialRow] = {}
    last: StudyAnswer | None = None

    def show(study: StudyAnswer) -> None:
        nonlocal last
        trials = client.trials(study_id)
        lines = study_lines(last, study) + change_lines(seen, trials, study)
        last = study
        for line in lines:
            console.print(plain(line))
        if lines:
            console.print(Text(f"  {_progress(study)}", style="dim"))
        seen.update((trial.number, trial) for trial in trials)

    return client.wait(study_id, timeout_s, on_change=show)


def _watch_live(
    client: Client, study_id: str, console: Console, timeout_s: float | None
) -> StudyAnswer:
    with Live(console=console, refresh_per_second=4) as live:

        def show(study: StudyAnswer) -> None:
            live.update(_live_view(study, client.trials(study_id)))

        return client.wait(study_id, timeout_s, on_look=show)


def _live_view(study: StudyAnswer, trials: Sequence[TrialRow]) -> RenderableType:
    """The trials begun last, and how far the study is."""
    begun = [trial for trial in trials if trial.state != "queued"][-MAX_ROWS:]
    best = study.best.number if study.best else None
    bar = ProgressBar(study.progress.total, study.progress.done, width=BAR_WIDTH)
    footer = Table.grid(padding=(0, 2))
    footer.add_row(bar, plain(_progress(study)))
    table = trials_table(begun, study.objective["metric"], best)
    notes = [plain(line) for line in study_lines(None, study)]
    return Group(table, "", footer, *notes)


def _progress(study: StudyAnswer) -> str:
    parts = [f"{study.progress.done} of {study.progress.total} trials done"]
    if study.best:
        parts.append(f"best {study.objective['metric']} {study.best.value:.4f}")
    if study.progress.done == study.progress.total and study.state == "running":
        parts.append("scoring the best on the test split")
    elif study.progress.eta_s:
        parts.append(f"about {duration_text(study.progress.eta_s)} left")
    if study.trials.running == 0 and study.trials.queued and study.state in ("queued", "running"):
        parts.append("waiting for a worker")
    if study.pause:
        parts.append("paused")
    return ", ".join(parts)
