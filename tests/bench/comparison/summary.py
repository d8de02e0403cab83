"""From raw runs to the tables that are printed: medians, with smallest and largest in brackets."""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, median

from comparison.record import SideRun

Figure = Callable[[SideRun], float]


def step_ms(run: SideRun) -> float:
    trials = run.study.trials
    return 1000 * sum(t.train_s for t in trials) / sum(t.steps for t in trials)


def tokens_per_s(run: SideRun) -> float:
    """Real train tokens per second of training."""
    return sum(run.real_tokens) / sum(t.train_s for t in run.study.trials)


def rate_share(run: SideRun) -> float:
    """Flops of the real tokens' matrix products per second of training, against the machine's."""
    needed = sum(run.train_flops) / sum(t.train_s for t in run.study.trials)
    return needed / run.matrix_rate


def trials_per_hour(run: SideRun) -> float:
    """Once every slot has ended its first trial, which waits for everything to be loaded; not a
    number where there is none after it."""
    ends = sorted(trial.finished_s for trial in run.study.trials)
    slots = int(run.side.partition("@")[2] or 1)
    if len(ends) <= slots:
        return math.nan
    return 3600 * (len(ends) - slots) / (ends[-1] - ends[slots - 1])


def per_trial(run: SideRun, seconds: float) -> float:
    """Sides with several slots run more trials."""
    return seconds / len(run.study.trials)


def mean_accuracy(run: SideRun) -> float:
    return fmean(t.accuracy for t in run.study.trials)


def best_accuracy(run: SideRun) -> float:
    return max(t.accuracy for t in run.study.trials)


FIGURES: tuple[tuple[str, Figure, str], ...] = (
    ("ms/step", step_ms, ".0f"),
    ("s/evaluation", lambda run: fmean(t.evaluation_s for t in run.study.trials), ".2f"),
    ("s/trial", lambda run: fmean(t.trial_s for t in run.study.trials), ".2f"),
    ("s/study", lambda run: run.study_s, ".1f"),
    ("s from submission", lambda run: run.study.search_s, ".1f"),
    ("CPU s", lambda run: run.cpu_s, ".0f"),
    ("real tokens/s", tokens_per_s, ".0f"),
    ("share of matrix rate", rate_share, ".1%"),
    ("trials/h, warm", trials_per_hour, ".0f"),
    ("accuracy, mean", mean_accuracy, ".4f"),
    ("accuracy, best", best_accuracy, ".4f"),
)
RATIOS: tuple[tuple[str, Figure], ...] = (
    ("s/study", lambda run: per_trial(run, run.study_s)),
    ("s from submission", lambda run: per_trial(run, run.study.search_s)),
    ("CPU s", lambda run: per_trial(run, run.cpu_s)),
    ("ms/step", step_ms),
    ("s/trial, warm", lambda run: 3600 / trials_per_hour(run)),
)


def report(runs: Sequence[SideRun]) -> str:
    """The tables of every case, as Markdown."""
    return "\n\n".join(_case_report(name, runs) for name in _distinct(run.case for run in runs))


def _case_report(name: str, runs: Sequence[SideRun]) -> str:
    of_case = [run for run in runs if run.case == name]
    rates = [run.matrix_rate / 1e9 for run in of_case]
    title = f"## {name}: matrix products at {_spread(rates, '.0f')} Gflop/s"
    return "\n".join([title, "", *_figures(of_case), "", *_ratios(of_case), "", *_trials(of_case)])


def _figures(runs: Sequence[SideRun]) -> list[str]:
    lines = [_row("side", "rounds", *(title for title, _, _ in FIGURES)), _rule(len(FIGURES) + 2)]
    for side in _distinct(run.side for run in runs):
        own = [run for run in runs if run.side == side]
        cells = [_spread([figure(run) for run in own], form) for _, figure, form in FIGURES]
        lines.append(_row(side, str(len(own)), *cells))
    return lines


def _ratios(runs: Sequence[SideRun]) -> list[str]:
    """How many times as long as Bertune's first side each other takes, round by round."""
    sides = _distinct(run.side for run in runs)
    ours = next((side for side in sides if side.startswith("bertune@")), "bertune")
    base = {run.round: run for run in runs if run.side == ours}
    lines = [_row(f"times {ours}", *(title for title, _ in RATIOS)), _rule(len(RATIOS) + 1)]
    for side in sides:
        pairs = [(run, base[run.round]) for run in runs if run.side == side and run.round in base]
        if side == ours or not pairs:
            continue
        cells = [
            _spread([figure(run) / figure(own) for run, own in pairs], ".2f")
            for _, figure in RATIOS
        ]
        lines.append(_row(side, *cells))
    return lines


def _trials(runs: Sequence[SideRun]) -> list[str]:
    """Milliseconds per step of every trial: where each side is slow."""
    sides = _distinct(run.side for run in runs)
    lines = [_row("ms/step of trial", *sides), _rule(len(sides) + 1)]
    for number in range(min(len(run.study.trials) for run in runs)):
        cells = []
        for side in sides:
            trials = [run.study.trials[number] for run in runs if run.side == side]
            cells.append(_spread([1000 * t.train_s / t.steps for t in trials], ".0f"))
        lines.append(_row(str(number), *cells))
    return lines


def _spread(values: Sequence[float], form: str) -> str:
    middle = format(median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)}–{format(max(values), form)})"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
