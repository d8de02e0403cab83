"""What a data set of a million rows costs in memory, from its upload to the last step.

    python tests/bench/memory.py [--rows 1000000] [--words 20] [--model scratch:tiny]

The same study of one short trial runs twice, each time on a server of its own with one worker, as
`bertune up` runs them: on a few rows, and on so many. Prints a Markdown table of the largest
resident memory of the server, the worker's agent and its trainer, and how much of it the rows are
to blame for. Rows are of seeded random words, as many as stated on average.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from comparison.server import admin_key, running_server

from studies.api import Api

FEW_ROWS = 2_000
VALIDATION_ROWS = 1_000
WORDS = 20_000
"""Different ones; a few are frequent, as in any language."""
STEPS = 20
MAX_LENGTH = 64
ROLES = {"server": "service.cli up", "agent": "service.cli worker", "trainer": "worker.trainer"}
"""By what their command lines hold."""


def write_rows(path: Path, rows: int, words: int, seed: int) -> None:
    chance = random.Random(seed)
    vocabulary = ["".join(chance.choices("aeioubdgklmnprst", k=2 + k % 9)) for k in range(WORDS)]
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for _ in range(rows):
            count = chance.randint(words // 2, words + words // 2)
            text = " ".join(
                vocabulary[int(chance.paretovariate(0.7)) % WORDS] for _ in range(count)
            )
            file.write(f"{text},{'abcd'[chance.randrange(4)]}\n")


def processes(root: int) -> Iterator[int]:
    """A process and all below it."""
    yield root
    for path in Path(f"/proc/{root}/task").glob("*/children"):
        for child in path.read_text().split():
            yield from processes(int(child))


def peaks_mib(root: int) -> dict[str, int]:
    """The largest resident memory so far of each role among the processes below ``root``."""
    found: dict[str, int] = {}
    for process in processes(root):
        command = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
        status = Path(f"/proc/{process}/status").read_text()
        for role, mark in ROLES.items():
            peak = re.search(r"VmHWM:\s+(\d+) kB", status)
            if mark in command and peak:
                found[role] = max(found.get(role, 0), int(peak[1]) // 1024)
    return found


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def measure(train: Path, validation: Path, model: str, folder: Path) -> dict[str, int]:
    """Run the study; the peaks of its processes in MiB."""
    home = folder / "home"
    spec = {
        "name": "memory",
        "model": model,
        "search_space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3}},
        "training": {"max_steps": STEPS, "max_length": MAX_LENGTH, "epochs": 1},
        "budget": {"n_trials": 1},
    }
    settings = {"CUDA_VISIBLE_DEVICES": ""}
    with (
        running_server(home, folder / "log", settings=settings) as url,
        Api(url, admin_key(home)) as client,
    ):
        with timed("upload"):
            dataset = client.upload_dataset(train, validation)
        with timed("study"):
            ended = client.wait(client.submit({**spec, "dataset": dataset.id}).id, poll_s=0.5)
        if ended.trials.completed != 1:
            raise RuntimeError(f"{ended.state}: {ended.trials}, {ended.error}")
        return peaks_mib(_server_process(home))


def _server_process(home: Path) -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        command = path.read_text().replace("\0", " ")
        if ROLES["server"] in command and str(home) in command:
            return int(path.parent.name)
    raise RuntimeError("the server is gone")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="default %(default)s")
    parser.add_argument("--words", type=int, default=20, help="of a row; default %(default)s")
    parser.add_argument("--model", default="scratch:tiny", help="default %(default)s")
    asked = parser.parse_args(argv)
    found = {}
    with tempfile.TemporaryDirectory(prefix="bertune-memory-") as name:
        scratch = Path(name)
        validation = scratch / "validation.csv"
        write_rows(validation, VALIDATION_ROWS, asked.words, seed=1)
        for rows in (FEW_ROWS, asked.rows):
            folder = scratch / str(rows)
            folder.mkdir()
            train = folder / "train.csv"
            write_rows(train, rows, asked.words, seed=0)
            mib = train.stat().st_size / 2**20
            print(f"{rows:,} rows, {mib:.0f} MiB", file=sys.stderr, flush=True)
            found[rows] = measure(train, validation, asked.model, folder)
    print(f"| MiB at most | {FEW_ROWS:,} rows | {asked.rows:,} rows | difference |")
    print("|---|---|---|---|")
    for role in ROLES:
        few, many = found[FEW_ROWS][role], found[asked.rows][role]
        print(f"| {role} | {few:,} | {many:,} | {many - few:+,} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
