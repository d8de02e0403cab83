"""The benchmark still runs: every side, through real processes, on a case of seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPARE = Path(__file__).parents[1] / "bench/compare.py"
WAIT_S = 280


def test_the_benchmark_times_every_side_on_the_same_trials(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the peer needs the extra `bench`")
    out = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, str(COMPARE), "--smoke", "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "| times bertune@1 |" in done.stdout
    runs = {run["side"]: run for run in json.loads(out.read_text())["runs"]}
    assert list(runs) == ["defaults", "tuned", "bertune@1"]
    for run in runs.values():
        trials = run["study"]["trials"]
        # 48 rows: six batches of 8, three of 16.
        assert [trial["steps"] for trial in trials] == [6, 3]
        assert all(trial["train_s"] > 0 and trial["evaluation_s"] > 0 for trial in trials)
        assert 0 < run["study"]["search_s"] < run["study_s"]


def test_an_unknown_case_is_refused_by_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(COMPARE), "--smoke", "--cases", "no-such"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "the cases are smoke" in done.stderr


def test_the_overhead_is_measured_beside_plain_optuna(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(COMPARE.with_name("overhead.py"))),
            *("--existing", "2,40", "--workers", "1,2", "--trials", "10"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["2", "1"], ["2", "2"], ["40", "1"], ["40", "2"]]
    for row in rows:
        ours, theirs = (float(cell.split()[0]) for cell in row[2:4])
        assert ours > 0
        assert theirs > 0
        assert float(row[5]) == pytest.approx(7 * 1000 / ours, rel=0.02, abs=0.51)


def test_the_memory_of_every_process_is_measured(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(COMPARE.with_name("memory.py")), "--rows", "3000", "--words", "8"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["server", "agent", "trainer"]
    for _, few, many, difference in rows:
        peaks = [int(cell.replace(",", "")) for cell in (few, many, difference)]
        assert peaks[1] - peaks[0] == peaks[2]
        assert min(peaks[:2]) > 20  # an interpreter alone takes 10
