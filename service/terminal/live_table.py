"""The trials of a study that runs, as they stand now: what fits a terminal, however small it is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.terminal.views import (
    counts_text,
    duration_text,
    epoch_text,
    number_text,
    plain,
    scalar_text,
    stage_text,
)
from studies.wire.studies import StudyAnswer
from studies.wire.trials import TrialRow

MOST_ROWS = 30
"""More are not taken in at a glance, on however tall a screen."""
LEAST_ROWS = 3
NARROW, MEDIUM, WIDE = 54, 84, 110
"""Columns of a terminal from which epochs and time left, counts, and parameters are shown."""
STUDY_BAR = 40


def live_view(
    study: StudyAnswer,
    trials: Sequence[TrialRow],
    summary: str,
    notes: Sequence[str],
    *,
    width: int,
    height: int,
) -> RenderableType:
    """Trials at work with their bars, then those that ended last; the study's bar, ``summary`` and
    ``notes`` below. Never higher than ``height`` where that leaves room for `LEAST_ROWS`."""
    bar = Table.grid()
    bar.add_row(ProgressBar(1.0, study.progress.share, width=min(STUDY_BAR, width)))
    below = [plain(summary), *(plain(note) for note in notes)]
    # The table's header, the line on what is hidden, the study's bar, and a line to spare.
    taken = 4 + sum(math.ceil(max(1, len(text)) / width) for text in below)
    rows, hidden = chosen(trials, max(LEAST_ROWS, min(MOST_ROWS, height - taken)))
    best = study.best.number if study.best else None
    table = _table(rows, study.objective["metric"], best, width)
    return Group(table, Text(hidden, style="dim"), bar, *below)


def chosen(trials: Sequence[TrialRow], most: int) -> tuple[list[TrialRow], str]:
    """At most ``most`` trials by number, those at work before those that ended last, and what is
    said of the others."""
    running = [trial for trial in trials if trial.state == "running"]
    ended = [trial for trial in trials if trial.finished_at is not None]
    ended.sort(key=lambda trial: (trial.finished_at, trial.number), reverse=True)
    shown = [*running[:most], *ended[: max(0, most - len(running))]]
    left = {"running": len(running[most:]), "ended": len(ended) - max(0, most - len(running))}
    hidden = ", ".join(f"{count} more {name}" for name, count in left.items() if count > 0)
    return sorted(shown, key=lambda trial: trial.number), hidden


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    cell: Callable[[TrialRow], RenderableType]
    least: int = 4
    """Columns that it keeps when there are too few for all."""


def _table(rows: Sequence[TrialRow], metric: str, best: int | None, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1 if width < NARROW else 2, 0, 0))
    columns = _columns(rows, metric, best, width)
    for column in columns:
        table.add_column(
            plain(column.title), no_wrap=True, overflow="ellipsis", min_width=column.least
        )
    for trial in rows:
        table.add_row(*(column.cell(trial) for column in columns))
    return table


def _columns(rows: Sequence[TrialRow], metric: str, best: int | None, width: int) -> list[_Column]:
    bar_width = 5 if width < NARROW else 12
    marks = {t.number: f"{t.number}{' *' if t.number == best else ''}" for t in rows}
    columns = [
        _Column("#", lambda trial: marks[trial.number], max(map(len, marks.values()), default=1)),
        _Column("state", stage_text),
        _Column(metric, lambda trial: number_text(_value(trial)), 6),
        _Column("done", lambda trial: _bar(trial, bar_width), bar_width + 5),
    ]
    if width >= NARROW:
        columns += [
            _Column("epoch", epoch_text),
            _Column("left", _left_text, 8),
        ]
    if width >= MEDIUM:
        columns.append(_Column("at", counts_text))
    if width >= WIDE:
        names = dict.fromkeys(name for trial in rows for name in trial.params or {})
        columns += [_Column(name, _param(name)) for name in names]
    if width >= MEDIUM and any(trial.attempt > 1 for trial in rows):
        columns.append(_Column("attempt", lambda trial: str(trial.attempt or "–")))
    if width >= MEDIUM and any(trial.error for trial in rows):
        columns.append(_Column("error", lambda t: plain(t.error.code) if t.error else ""))
    return columns


def _value(trial: TrialRow) -> float | None:
    """The trial's value, or its best so far."""
    return trial.value if trial.progress is None else trial.progress.best_value


def _bar(trial: TrialRow, width: int) -> RenderableType:
    if trial.progress is None:
        return ""
    share = trial.progress.share
    cell = Table.grid(padding=(0, 1))
    cell.add_row(ProgressBar(1.0, share, width=width), f"{math.floor(100 * share)}%")
    return cell


def _left_text(trial: TrialRow) -> str:
    left_s = None if trial.progress is None else trial.progress.eta_s
    return "" if left_s is None else duration_text(left_s)


def _param(name: str) -> Callable[[TrialRow], Text]:
    return lambda trial: plain(
        scalar_text((trial.params or {})[name]) if name in (trial.params or {}) else "–"
    )
