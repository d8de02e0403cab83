"""The README's shell examples, run as they stand there against a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import WAIT_S, Environment, bertune
from real_parts import tickets

from service.commands.schedule_files import read_schedules

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOCAL = "http://127.0.0.1:8000"

NOT_RUN = {
    "make demo": "trains for minutes; test_demo.py runs it",
    "make test": "is what runs this test",
    "source .venv": "the tests run in their own environment",
    "bertune up": "runs until Ctrl-C; test_cli.py starts it",
    "BERTUNE_SERVER=https://bertune.example": "an address that does not exist, and a key left out",
    "curl -N": "listens until Ctrl-C",
    "pip install": "downloads a model",
    "mkdir -p models": "links that model",
    "BERTUNE_MODEL_DIRS=models taskset": "runs until Ctrl-C",
    "python tests/bench/real_input.py": "trains for half an hour on data that not everybody has",
    'echo "I lost my card"': "asks a model, and this test's worker makes none; test_prediction.py",
    "python -m model predict": "as the line before it",
    "python -m model onnx": "as the lines before it; test_onnx.py",
    "make quality": "trains for hours on data that not everybody has",
    "python tests/bench/step_time.py": "wants a GPU",
    "make bench": "trains for an hour on data that not everybody has",
}
"""Lines by how they begin, and why they are not run."""


def examples() -> list[str]:
    """The README's blocks of `sh`, without the lines of `NOT_RUN`; empty ones are left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
    kept = ("\n".join(line for line in block.splitlines() if not skipped(line)) for block in blocks)
    return [block for block in kept if block.strip()]


def skipped(line: str) -> bool:
    return line.startswith(tuple(NOT_RUN))


def spec_of_the_readme() -> str:
    [found] = re.findall(r"^```yaml\n(name: tickets\n.*?)^```", README, re.M | re.S)
    # No download, and a test needs no twenty trials.
    return (
        str(found)
        .replace("bert-base-uncased", "scratch:tiny")
        .replace("n_trials: 20", "n_trials: 2")
    )


@pytest.fixture
def desk(tmp_path: Path, data_root: Path, cli_home: Path) -> Path:
    """A folder with the files that the examples speak of, and the commands that they call."""
    desk = tmp_path / "desk"
    tickets(desk)
    tickets(desk / "held-out", first_text="well", rows=30).rename(desk / "tickets-test.csv")
    (desk / "study.yaml").write_text(spec_of_the_readme())
    (desk / "schedules").mkdir()
    (desk / "schedules" / "nightly.yaml").write_text(schedules_of_the_readme())
    for home in ("bertune-data", "demo-data"):
        (desk / home).symlink_to(cli_home)
    (desk / "bin").mkdir()
    command = desk / "bin" / "bertune"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m service.cli "$@"\n')
    command.chmod(0o755)
    return desk


def schedules_of_the_readme() -> str:
    [found] = re.findall(r"^```yaml\n(name: nightly\n.*?)^```", README, re.M | re.S)
    return str(found).replace("bert-base-uncased", "scratch:tiny")


def run(environment: Environment, desk: Path, script: str) -> str:
    own = {
        **environment,
        "PATH": f"{desk / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=own,
        cwd=desk,
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_line_that_is_not_run_stands_in_the_readme() -> None:
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
             for line in block.splitlines()]  # fmt: skip
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), start


def test_the_examples_run_from_the_first_to_the_last(
    environment: Environment, fake_worker: None, desk: Path
) -> None:
    upload = bertune(environment, "dataset", "add", desk / "tickets.csv", "--quiet")
    filled = {LOCAL: environment["BERTUNE_SERVER"], "<id>": upload.stdout.strip()}
    said = []
    for example in examples():
        for mark, value in filled.items():
            example = example.replace(mark, value)
        said.append(run(environment, desk, example))
    whole = "\n".join(said)
    assert "trial 0 completed" in whole
    assert (desk / "model" / "weights").exists()
    assert "Done: 2 added" in whole
    assert "Nothing to do" in whole
    assert not re.search(r'"error": ?"', whole)  # what curl brings of a refusal


def test_the_schedules_of_the_readme_are_read(tmp_path: Path) -> None:
    path = tmp_path / "schedules.yaml"
    path.write_text(schedules_of_the_readme())
    schedules, problems = read_schedules([path])
    assert [schedule.spec.name for schedule in schedules] == ["nightly", "weekly"]
    assert problems == []
