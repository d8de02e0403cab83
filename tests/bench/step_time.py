"""How long a training step takes on a CUDA device, recorded and plain, and where its time goes.

    python tests/bench/step_time.py [--shapes minilm,bert-base] [--profile]

Random weights and rows that fill ``max_length``, so that no token is padding. Prints a Markdown
table: milliseconds per step (median of several stretches), tokens per second, and the share of the
measured rate of bf16 matrix products that the model's products took (MFU). ``--profile`` adds the
kernels that took longest. Needs the extra `train` and nothing to download.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from comparison.arithmetic import BACKWARD, forward_flops
from comparison.matrix_rate import matrix_rate
from comparison.models import SHAPES, write_random
from torch.profiler import ProfilerActivity, profile

from model.batches import Positions
from model.config import TrainConfig
from model.devices import choose_device, fast_matrix_products, resolve_precision
from model.errors import InputError
from model.normalised_file import Examples
from model.training_cache import TrainingCache
from model.training_run import TrainingRun
from model.trial_data import TrainData, prepare

SIZES = ((16, 32), (32, 32), (32, 128), (64, 128), (32, 512))
"""Batch size and length."""
WARM_STEPS, STEPS, STRETCHES = 6, 10, 4
ROWS = 256
WORDS = 4000
PROFILED = 5
PROFILED_SIZES = ((32, 32), (32, 128))


def texts(rows: int) -> Examples:
    generator = np.random.default_rng(0)
    letters = generator.choice(list("abcdefghijklmnopqrstuvwxyz"), size=(WORDS, 5))
    drawn = generator.choice(["".join(word) for word in letters], size=(rows, 600))
    labels = ["ab"[row % 2] for row in range(rows)]
    return Examples([" ".join(row) for row in drawn], None, labels, np.arange(1, rows + 1))


def warm_run(
    config: TrainConfig, data: TrainData, cache: TrainingCache, *, recorded: bool
) -> tuple[TrainingRun, Iterator[Positions]]:
    """A run that has made its first steps, which set up or record kernels, and its batches, over
    and over."""
    device = choose_device("cuda")
    precision = resolve_precision("auto", device)
    with mock.patch("model.recorded_steps.can_record", return_value=recorded):
        material = prepare(config, data, cache)
        run = TrainingRun(config, material, device=device, precision=precision)
    given = cycle(run.remaining_batches())
    for positions in islice(given, WARM_STEPS):
        run.learn(positions)
    return run, given


def step_ms(run: TrainingRun, given: Iterator[Positions]) -> float:
    """The median over stretches of steps, with the work that they queued."""
    taken = []
    for _ in range(STRETCHES):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for positions in islice(given, STEPS):
            run.learn(positions)
        torch.cuda.synchronize()
        taken.append(1000 * (time.perf_counter() - started) / STEPS)
    return median(taken)


def longest_kernels(run: TrainingRun, given: Iterator[Positions]) -> list[str]:
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for positions in islice(given, PROFILED):
            run.learn(positions)
        torch.cuda.synchronize()
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in found.events() or ():
        if event.device_type.name == "CUDA":
            spent[event.name] += event.time_range.elapsed_us()
            calls[event.name] += 1
    total = sum(spent.values())
    lines = [
        f"kernels: {total / PROFILED / 1000:.2f} ms, {sum(calls.values()) // PROFILED} of them"
    ]
    for name, microseconds in spent.most_common(28):
        lines.append(
            f"{microseconds / total:6.1%} {calls[name] // PROFILED:5d} × "
            f"{microseconds / calls[name]:6.1f} µs  {name[:110]}"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="minilm,bert-base", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    try:
        device = choose_device("cuda")
    except InputError as error:
        print(f"{error.code}: this measures a GPU, and torch sees none.", file=sys.stderr)
        return 2
    rate = matrix_rate("cuda")
    print(f"{torch.cuda.get_device_name()}: {rate / 1e12:.0f} Tflop/s in bf16 matrix products")
    print("| model | batch | length | step | ms | tokens/s | MFU |\n|---|---|---|---|---|---|---|")
    data = TrainData(train=texts(ROWS), validation=texts(8), labels=("a", "b"), dataset_key="rows")
    cache, kernels = TrainingCache(2**30), []
    with tempfile.TemporaryDirectory() as scratch, fast_matrix_products(device):
        for shape in asked.shapes.split(","):
            folder = Path(scratch) / shape
            write_random(shape, folder, data.train.text_a)
            for rows, length in SIZES:
                flops = (1 + BACKWARD) * forward_flops(folder, np.full(rows, length))
                config = TrainConfig(
                    model=str(folder),
                    learning_rate=1e-5,
                    batch_size=rows,
                    max_length=length,
                    epochs=10_000,
                )
                for kind in ("plain", "recorded"):
                    run, given = warm_run(config, data, cache, recorded=kind == "recorded")
                    ms = step_ms(run, given)
                    print(
                        f"| {shape} | {rows} | {length} | {kind} | {ms:.2f} "
                        f"| {1000 * rows * length / ms:,.0f} | {flops / ms / rate * 1000:.1%} |",
                        flush=True,
                    )
                    if asked.profile and kind == "recorded" and (rows, length) in PROFILED_SIZES:
                        kernels += [f"\n{shape}, {rows} × {length}", *longest_kernels(run, given)]
                    del run, given
                    torch.cuda.empty_cache()
    print("\n".join(kernels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
