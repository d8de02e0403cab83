"""The comparison of quality still runs: both sides on every kind of task, on a few made-up rows."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from comparison.models import model_folder
from parity import trainer_side
from parity.cases import CASES, SIDES, Side, first_rows, read_rows
from parity.scoring import evaluation_of
from quality import side_named

QUALITY = Path(__file__).parents[1] / "bench/quality.py"
WAIT_S = 280
CUES = ("login", "payment")
ROWS = {"train": 24, "dev": 8, "test": 8}


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(QUALITY), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three data sets whose labels their words tell, in the files of the real ones."""
    for split, rows in ROWS.items():
        cues = [CUES[row % 2] for row in range(rows)]
        for name, column in (("subj", "label"), ("nlupp_banking", "labels")):
            path = tmp_path / "data" / name / f"{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="") as file:
                lines = ((f"my {cue} number {row} again", cue) for row, cue in enumerate(cues))
                csv.writer(file).writerows([("text", column), *lines])
        path = tmp_path / "data" / "wnut17" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        tagged = ({"tokens": ["my", cue, "app"], "tags": ["O", f"B-{cue}", "O"]} for cue in cues)
        path.write_text("".join(json.dumps(row) + "\n" for row in tagged))
    return tmp_path / "data"


def test_both_sides_train_every_task_and_a_rerun_goes_on(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("accelerate", reason="the Trainer needs the extra `bench`")
    model = model_folder("random:tiny", tmp_path / "base", data / "subj/train.csv")
    out = tmp_path / "out"
    asked = ["--data", str(data), "--model", str(model), "--out", str(out), "--epochs", "1"]
    asked += ["--only", "subj,nlupp_banking,wnut17", "--threads", "1", "--learning-rate", "1e-3"]
    first = run(*asked, "--seeds", "1", "--side", "bertune")
    assert first.returncode == 0, first.stderr
    done = run(*asked, "--seeds", "2")
    assert done.returncode == 0, done.stderr

    runs = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    order = [(entry["case"], entry["side"], entry["seed"]) for entry in runs]
    cases = ("subj", "nlupp_banking", "wnut17")
    # The second call trained what was left: the other side, and the second seed in the other order.
    left = (("trainer", 0), ("trainer", 1), ("bertune", 1))
    assert order == [(case, "bertune", 0) for case in cases] + [
        (case, side, seed) for case in cases for side, seed in left
    ]
    for entry in runs:
        assert entry["steps"] == {"subj": 1}.get(entry["case"], 2)  # 24 rows in batches of 32, 16
    subj = [entry for entry in runs if entry["case"] == "subj"]
    for entry in subj:
        cells = entry["matrix"]
        assert sum(map(sum, cells)) == ROWS["test"]
        assert entry["test"]["accuracy"] == (cells[0][0] + cells[1][1]) / ROWS["test"]

    for case in cases:
        assert f"| {case} | lr 0.001, " in done.stdout
    matrices = sorted(path.name for path in (out / "confusion").iterdir())
    assert matrices == sorted(f"{c}-head-{s}.csv" for c in cases for s in ("bertune", "trainer"))
    with (out / "confusion/subj-head-bertune.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["true \\ predicted", *CUES]
    added = [[sum(e["matrix"][r][c] for e in subj[::3]) for c in (0, 1)] for r in (0, 1)]
    assert [[int(cell) for cell in line[1:]] for line in lines] == added


def test_a_trainer_starts_where_it_is_told_to(tmp_path: Path, data: Path) -> None:
    """Trained at next to no rate, so that what is told is what the head began with."""
    pytest.importorskip("accelerate", reason="the Trainer needs the extra `bench`")
    (case,) = [case for case in CASES if case.task == "multi_label"]
    case = replace(case, learning_rate=1e-9, epochs=1)
    model = model_folder("random:tiny", tmp_path / "base", data / "subj/train.csv")
    rows = read_rows(case, data, tmp_path / "scratch")
    rows = replace(rows, splits={**rows.splits, "train": first_rows(rows.splits["train"], 1)})
    config = case.config(model, "head", seed=0)
    odds = []
    for log_odds in (False, True):
        outcome = trainer_side.run(config, rows, torch.device("cpu"), log_odds=log_odds)
        told = outcome.test.probabilities
        odds.append(np.log(told / (1 - told)))
    # One row, of the class "login": (1 + ½) / (0 + ½) for it, and the reverse for "payment".
    assert odds[1] - odds[0] == pytest.approx(np.log([[3, 1 / 3]] * ROWS["test"]), abs=0.02)


@pytest.mark.parametrize("side", SIDES)
def test_predictions_are_those_of_their_rows(tmp_path: Path, side: Side) -> None:
    """Texts of mixed lengths, which both sides group by length, and splits of unlike sizes."""
    pytest.importorskip("accelerate", reason="the Trainer needs the extra `bench`")
    for split, count in {"train": 64, "dev": 24, "test": 40}.items():
        path = tmp_path / "data/subj" / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        cues = [CUES[row // 2 % 2] for row in range(count)]
        with path.open("w", newline="") as file:
            lines = ((f"my {cue}" + " again" * (row * 7 % 11), cue) for row, cue in enumerate(cues))
            csv.writer(file).writerows([("text", "label"), *lines])
    case = replace(CASES[0], learning_rate=3e-3, batch_size=16, max_length=16, epochs=8)
    model = model_folder("random:tiny", tmp_path / "base", tmp_path / "data/subj/train.csv")
    rows = read_rows(case, tmp_path / "data", tmp_path / "scratch")
    config = case.config(model, "head", seed=0)
    outcome = side_named(side).run(config, rows, torch.device("cpu"))
    for predictions in (outcome.validation, outcome.test):
        assert evaluation_of(case.task, rows.labels, predictions).metrics["accuracy"] > 0.9
