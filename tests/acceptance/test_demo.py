"""The demonstration, shortened: from an empty folder to a confusion matrix, twice."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

WAIT_S = 280


def demo(home: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTUNE_")}
    # A database of the environment must stay out of it.
    environment = {**kept, "BERTUNE_DATABASE_URL": "sqlite:////nonexistent/other.db"}
    command = [sys.executable, "-m", "service.cli", "demo", "--home", str(home)]
    done = subprocess.run(
        [*command, "--trials", "2", "--epochs", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    logs = "".join(path.read_text() for path in home.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    return done.stdout


@pytest.mark.timeout(600)
def test_the_demo_ends_with_the_best_configuration_its_matrix_and_the_test_score(
    tmp_path: Path,
) -> None:
    output = demo(tmp_path / "demo")
    best = re.search(r"^best  trial \d  macro_f1 (0\.\d+)  learning_rate=\S+", output, re.M)
    worst = re.search(r"^worst trial \d  macro_f1 (0\.\d+)", output, re.M)
    assert best
    assert worst
    assert float(best.group(1)) >= float(worst.group(1))
    assert re.search(r"^test +.*macro_f1 0\.\d+.*\(opened once\)$", output, re.M)
    assert "rows are true labels, columns predictions" in output
    assert f"up --home {tmp_path / 'demo'}" in output

    first = re.search(r"Study (\w+): 2 trials", output)
    second = re.search(r"Study (\w+): 2 trials", demo(tmp_path / "demo"))
    assert first
    assert second
    assert first.group(1) != second.group(1)
