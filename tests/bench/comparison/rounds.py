"""Runs the cases: interleaved rounds, each with its own seed, rows and order of sides."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison.arithmetic import needed_work
from comparison.environment import child_environment
from comparison.models import model_folder
from comparison.plan import Case, Device, Plan
from comparison.record import SideRun
from comparison.rows import write_rows
from comparison.sides import run_side

CORES_ENV = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Rounds:
    """What is to be run."""

    cases: Sequence[Case]
    sides: Sequence[str]
    count: int
    seed: int
    device: Device


def run_rounds(rounds: Rounds, folder: Path) -> Iterator[SideRun]:
    """Yield every run as it ends: round by round, in each all sides of one case after another."""
    hold_threads()
    for round_number in range(rounds.count):
        for case in rounds.cases:
            place = folder / f"{case.name}-{round_number}"
            plan = make_plan(case, rounds.seed + round_number, rounds.device, place)
            rate = _matrix_rate(rounds.device)
            work = needed_work(plan)
            for side in rotated(rounds.sides, round_number):
                load = os.getloadavg()[0]
                timed = run_side(side, plan, place / side)
                copies = len(timed.study.trials) // len(case.trials)
                yield SideRun(
                    case=case.name,
                    round=round_number,
                    side=side,
                    study_s=timed.study_s,
                    cpu_s=timed.cpu_s,
                    load=load,
                    matrix_rate=rate,
                    real_tokens=copies * work.real_tokens,
                    train_flops=copies * work.train_flops,
                    study=timed.study,
                )


def make_plan(case: Case, seed: int, device: Device, folder: Path) -> Plan:
    """Draw the rows and, for random weights, write the model."""
    data = folder / "data"
    write_rows(case, data, seed)
    model = model_folder(case.model, folder / "model", data / "train.csv")
    return Plan(case=case, seed=seed, data_folder=data, model_folder=model, device=device)


def rotated(sides: Sequence[str], by: int) -> list[str]:
    """The sides in another order every round, so that none always runs first."""
    start = by % len(sides)
    return [*sides[start:], *sides[:start]]


def hold_threads() -> None:
    """Give every process started from here as many threads as this one may use cores."""
    cores = str(len(os.sched_getaffinity(0)))
    for name in CORES_ENV:
        os.environ.setdefault(name, cores)


def _matrix_rate(device: Device) -> float:
    command = [sys.executable, "-P", "-m", "comparison.matrix_rate", device]
    output = subprocess.run(
        command, env=child_environment(), stdout=subprocess.PIPE, check=True, text=True
    )
    return float(output.stdout)
