"""What the service itself costs per trial, beside plain Optuna on the same kind of storage.

    python tests/bench/overhead.py [--existing 10,1000] [--workers 1,8] [--database URL]

A trial that trains nothing goes the whole way of a real one: claim, five epochs reported one by one
with their decisions, the last one with the question whether to keep the model, and the result with
its confusion matrix, over HTTP to a server of its own, into its tables and Optuna's. Plain Optuna
makes the calls behind them in this process: ask, three suggestions, five reports with prune checks,
tell. Sampler, pruner, search space and values are the same, on files of their own
(``--database``: two empty databases of PostgreSQL, separated by a comma).

At each number of existing trials both sides take turns, a few trials each. Between numbers the
server stops and both studies get copies of their first trial (`comparison.filling`): to run ten
thousand would take hours. Prints a Markdown table: milliseconds per trial, median and quartiles,
the difference of the medians, and how many requests per second Bertune's server answered. With
``--ray`` Ray Tune takes its turn at the end, from nothing for each row (`comparison.ray_overhead`).
Hold it to some cores with `taskset`.
"""

import argparse
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from uuid import uuid4

import optuna
from comparison.filling import fill_bertune, fill_optuna
from comparison.server import admin_key, running_server

from service.worker.server_link import ServerLink
from studies.api import Api
from studies.wire.leases import (
    ClassMetrics,
    ConfusionMatrix,
    EpochMetrics,
    LeaseRequest,
    RenewRequest,
    ResultRequest,
)

EPOCHS = 5
REQUESTS = EPOCHS + 2
"""That a trial of Bertune's sends: the claim, a report per epoch, the result."""
CHUNK = 10
"""Trials of one side before it is the other's turn."""
SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
    "max_length": {"type": "int", "low": 16, "high": 128},
}
VALUE = 4 / 6
"""Of every epoch of every trial, so that none is pruned."""
NEVER = threading.Event()


class Bertune:
    """The whole way, from as many workers as are asked to run at once, to a server at ``url``."""

    def __init__(self, url: str, key: str) -> None:
        self._api = url, key
        self._link = ServerLink(url, key, orphan_s=60)

    def submit(self, folder: Path, trials: int) -> None:
        with Api(*self._api) as api:
            dataset = api.upload_dataset(*_write_rows(folder))
            spec = {
                "name": "overhead",
                "dataset": dataset.id,
                "search_space": SPACE,
                "training": {"epochs": EPOCHS},
                "objective": {"metric": "accuracy"},
                "sampler": "tpe",
                "pruner": "median",
                "budget": {"n_trials": trials, "max_parallel": 64},
            }
            api.submit(spec)

    def trial(self, worker: int = 0) -> None:
        request = LeaseRequest(worker=f"bench-{worker}", request_id=uuid4().hex)
        lease = self._link.claim(request, until=NEVER)
        assert lease is not None
        for epoch in range(EPOCHS):
            report = EpochMetrics(epoch=epoch, metrics={"accuracy": VALUE, "loss": 1.0})
            final = VALUE if epoch + 1 == EPOCHS else None
            self._link.renew(lease, RenewRequest(reports=[report], value=final), until=NEVER)
        self._link.finish(lease, _result(), until=NEVER)


class Plain:
    """Optuna as a script uses it."""

    def __init__(self, storage: str) -> None:
        self._study = optuna.create_study(
            storage=storage,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=0),
            pruner=optuna.pruners.MedianPruner(),
        )

    def trial(self, worker: int = 0) -> None:
        trial = self._study.ask()
        trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
        trial.suggest_categorical("batch_size", [8, 16, 32])
        trial.suggest_int("max_length", 16, 128)
        for epoch in range(EPOCHS):
            trial.report(VALUE, epoch)
            assert not trial.should_prune()
        self._study.tell(trial, VALUE)


def _write_rows(folder: Path) -> tuple[Path, Path]:
    paths = folder / "train.csv", folder / "dev.csv"
    for path, rows in zip(paths, (12, 6), strict=True):
        lines = (f"{path.stem} text number {row},{'ab'[row % 2]}\n" for row in range(rows))
        path.write_text("text,label\n" + "".join(lines), encoding="utf-8")
    return paths


def _result() -> ResultRequest:
    scores = {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    return ResultRequest(
        state="completed",
        value=VALUE,
        best_epoch=0,
        metrics={"accuracy": VALUE, "macro_f1": 2 / 3, "loss": 1.0},
        per_class=[ClassMetrics(label=label, **scores) for label in "ab"],
        confusion=ConfusionMatrix(labels=["a", "b"], matrix=[[2, 1], [1, 2]]),
        info={},
    )


def timed_ms(trial: Callable[[int], None], workers: int, trials: int) -> list[float]:
    """Milliseconds per trial; of several workers at once the wall clock per trial of each round."""
    taken = []
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(trials // workers):
            started = time.perf_counter()
            list(pool.map(trial, range(workers)))
            taken.append(1000 * (time.perf_counter() - started) / workers)
    return taken


def measure(
    bertune: Bertune, plain: Plain, existing: int, workers: Sequence[int], trials: int
) -> None:
    """Print the rows of a table for so many ``existing`` trials."""
    for number in workers:
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(trials // CHUNK):
            ours += timed_ms(bertune.trial, number, max(CHUNK, number))
            theirs += timed_ms(plain.trial, 1, CHUNK)
        difference = median(ours) - median(theirs)
        print(
            f"| {existing:,} | {number} | {_spread(ours)} | {_spread(theirs)} "
            f"| {difference:+.1f} | {REQUESTS * 1000 / median(ours):.0f} |",
            flush=True,
        )


def measure_ray(milestones: Sequence[int], workers: Sequence[int], trials: int) -> None:
    from comparison.ray_overhead import measured_ms

    print("\n| existing trials | at once | Ray Tune, ms |\n|---|---|---|")
    for milestone in milestones:
        for number in workers:
            count = max(trials, CHUNK * number)
            taken = measured_ms(
                existing=milestone, workers=number, trials=count, value=VALUE, epochs=EPOCHS
            )
            print(f"| {milestone:,} | {number} | {_spread(taken)} |", flush=True)


def _spread(values: Sequence[float]) -> str:
    low, middle, high = quantiles(values, n=4)
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


@contextmanager
def _server(folder: Path, database_url: str) -> Iterator[Bertune]:
    home = folder / "home"
    settings = {"BERTUNE_DATABASE_URL": database_url}
    with running_server(home, folder / "log", workers=0, settings=settings) as url:
        yield Bertune(url, admin_key(home))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--existing", default="10,1000", help="numbers of trials; default 10,1000")
    parser.add_argument("--workers", default="1,8", help="claims at once; default 1,8")
    parser.add_argument("--trials", type=int, default=30, help="timed ones; default %(default)s")
    parser.add_argument("--ray", action="store_true", help="and Ray Tune, which must be installed")
    parser.add_argument("--database", help="two URLs of empty databases; default SQLite files")
    asked = parser.parse_args(argv)
    milestones = sorted(int(text) for text in asked.existing.split(","))
    workers = [int(text) for text in asked.workers.split(",")]
    total = milestones[-1] + (len(milestones) + 1) * len(workers) * max(asked.trials, 80) * 8
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    with tempfile.TemporaryDirectory(prefix="bertune-overhead-") as name:
        folder = Path(name)
        ours, theirs = (
            asked.database.split(",")
            if asked.database
            else (f"sqlite:///{folder / 'bertune.db'}", f"sqlite:///{folder / 'plain.db'}")
        )
        plain = Plain(theirs)
        with _server(folder, ours) as bertune:
            bertune.submit(folder, total)
            bertune.trial()
            plain.trial()
        print(
            "| existing trials | workers | Bertune, ms | plain Optuna, ms | difference, ms "
            "| requests/s |\n|---|---|---|---|---|---|"
        )
        for milestone in milestones:
            fill_bertune(ours, milestone)
            fill_optuna(theirs, milestone)
            with _server(folder, ours) as bertune:
                for side in (bertune, plain):  # reads the study, which is done once
                    side.trial()
                measure(bertune, plain, milestone, workers, asked.trials)
    if asked.ray:
        measure_ray(milestones, workers, asked.trials)
    return 0


if __name__ == "__main__":
    sys.exit(main())
