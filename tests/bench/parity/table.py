"""From finished runs to the table that is printed and to the confusion matrices that are kept."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from scipy.stats import ttest_ind

from parity.cases import SIDES, Case, Side, shown
from parity.record import Run

HEADER = (
    "data",
    "settings",
    "texts cut",
    "test metric",
    "Bertune",
    "Trainer",
    "difference (95 %)",
    "within seed noise",
)
TEST = (
    "Mean ± standard deviation over the seeds. Within seed noise: Welch's two-sided t-test of the "
    "two sides' scores does not tell them apart at the 5 % level, that is, 0 lies in the 95 % "
    "interval of the difference."
)
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the first side's mean lies above the other's."""

    mean: float
    low: float
    high: float
    """Bounds of the 95 % interval."""

    @property
    def within_noise(self) -> bool:
        return self.low <= 0 <= self.high


def difference(one: Sequence[float], other: Sequence[float]) -> Difference | None:
    """Welch's interval; None where a side has too few seeds to know its spread.

    Sides without any spread differ by exactly what they differ by.
    """
    if min(len(one), len(other)) < 2:
        return None
    mean = fmean(one) - fmean(other)
    if np.ptp(one) == 0 == np.ptp(other):
        return Difference(mean, mean, mean)
    interval = ttest_ind(one, other, equal_var=False).confidence_interval(1 - LEVEL)
    return Difference(mean, float(interval.low), float(interval.high))


def report(cases: Sequence[Case], runs: Sequence[Run]) -> str:
    """A row per case and way to cut its texts that has any run, and how to read them."""
    lines = [_row(*HEADER), "|" + "---|" * len(HEADER)]
    for case in cases:
        for policy in case.policies:
            scores = {side: _scores(case, policy, side, runs) for side in SIDES}
            if any(scores.values()):
                lines.append(_line(case, policy, scores))
    return "\n".join([*lines, "", TEST])


def _scores(case: Case, policy: str, side: Side, runs: Sequence[Run]) -> list[float]:
    return [
        run.test[case.metric]
        for run in runs
        if (run.case, run.policy, run.side) == (case.name, policy, side)
    ]


def _line(case: Case, policy: str, scores: dict[Side, list[float]]) -> str:
    found = difference(scores["bertune"], scores["trainer"])
    settings = ", ".join(f"{name} {value}" for name, value in shown(case).items())
    between, verdict = "", ""
    if found is not None:
        between = f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
        verdict = "yes" if found.within_noise else "no"
    sides = (_spread(scores[side]) for side in SIDES)
    return _row(case.name, settings, policy, case.metric, *sides, between, verdict)


def _spread(scores: Sequence[float]) -> str:
    """With how many seeds it was."""
    if not scores:
        return ""
    if len(scores) == 1:
        return f"{scores[0]:.4f} (1)"
    return f"{fmean(scores):.4f} ± {stdev(scores):.4f} ({len(scores)})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def write_matrices(folder: Path, runs: Sequence[Run]) -> None:
    """Write ``CASE-POLICY-SIDE.csv``: the usual confusion matrix on the test split, added up over
    the seeds; the first row and column hold the labels, rows are true."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, policy, side in dict.fromkeys((run.case, run.policy, run.side) for run in runs):
        own = [run for run in runs if (run.case, run.policy, run.side) == (case, policy, side)]
        counts = np.sum([run.matrix for run in own], axis=0)
        path = folder / f"{case}-{policy}-{side}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["true \\ predicted", *own[0].matrix_labels])
            for label, row in zip(own[0].matrix_labels, counts.tolist(), strict=True):
                writer.writerow([label, *row])
