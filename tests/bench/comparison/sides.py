"""Runs one side of the comparison in processes of its own, and takes its time from outside."""

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from comparison import bertune_side
from comparison.environment import child_environment
from comparison.plan import PEERS, Plan
from comparison.record import StudyRecord


@dataclass(frozen=True, slots=True)
class Timed:
    """A side's own record, and the time that all of its processes took."""

    study: StudyRecord
    study_s: float
    cpu_s: float


def run_side(side: str, plan: Plan, folder: Path) -> Timed:
    """Run ``side``: a peer's name, ``ray@SLOTS`` or ``bertune@SLOTS``.

    Raises `RuntimeError` when it does not get through all trials; its log stays in ``folder``.
    """
    folder.mkdir(parents=True)
    started, cpu_before = time.time(), _children_cpu_s()
    name, _, slots = side.partition("@")
    if side in PEERS:
        study = _run_peer(["comparison.peer", side], plan, folder)
    elif name == "ray":
        study = _run_peer(["comparison.ray_side", slots], plan, folder)
    else:
        study = bertune_side.run(plan, folder, slots=int(slots))
    return Timed(study, study.last_result_at - started, _children_cpu_s() - cpu_before)


def _run_peer(module: list[str], plan: Plan, folder: Path) -> StudyRecord:
    plan_file, record, log = folder / "plan.json", folder / "record.json", folder / "peer.log"
    plan.write(plan_file)
    command = [sys.executable, "-P", "-m", *module, str(plan_file), str(record)]
    with log.open("wb") as output:
        done = subprocess.run(
            command, env=child_environment(), stdout=output, stderr=output, check=False
        )
    if done.returncode:
        raise RuntimeError(
            f"{module} ended with status {done.returncode}:\n{log.read_text()[-4000:]}"
        )
    return StudyRecord.read(record)


def _children_cpu_s() -> float:
    """Processor seconds of every descendant that has ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
