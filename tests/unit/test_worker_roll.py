"""Whose workers a start may take for dead: those of processes that are dead themselves."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.local.worker_roll import FOLDER, WorkerRoll, abandoned_workers

KEEP_ROLL = """
import sys
from pathlib import Path
from service.local.worker_roll import WorkerRoll
roll = WorkerRoll(Path(sys.argv[1]))
for name in sys.argv[2:]:
    roll.add(name)
print("kept", flush=True)
sys.stdin.read()
"""


@contextmanager
def process_with_roll(home: Path, *names: str) -> Iterator[None]:
    """A process that started workers of these names; it is killed at the end of the block."""
    command = [sys.executable, "-c", KEEP_ROLL, str(home), *names]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "kept\n"
        try:
            yield
        finally:
            process.kill()


def test_the_workers_of_a_killed_process_are_found_once_and_those_of_a_living_one_never(
    tmp_path: Path,
) -> None:
    with process_with_roll(tmp_path, "alive"):
        with process_with_roll(tmp_path, "w1", "w2"), abandoned_workers(tmp_path) as found:
            assert found == []
        with abandoned_workers(tmp_path) as found:
            assert found == ["w1", "w2"]
        with abandoned_workers(tmp_path) as found:
            assert found == []


def test_this_processes_own_workers_are_alive(tmp_path: Path) -> None:
    roll = WorkerRoll(tmp_path)
    roll.add("w1")
    with abandoned_workers(tmp_path) as found:
        assert found == []
    roll.close()
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_workers_that_could_not_be_buried_are_found_again(tmp_path: Path) -> None:
    with process_with_roll(tmp_path, "w1"):
        pass
    with pytest.raises(RuntimeError), abandoned_workers(tmp_path):
        raise RuntimeError("killed in the middle")
    with abandoned_workers(tmp_path) as found:
        assert found == ["w1"]


def test_two_starts_at_once_bury_no_worker_twice(tmp_path: Path) -> None:
    with process_with_roll(tmp_path, "w1"):
        pass
    with abandoned_workers(tmp_path) as one, abandoned_workers(tmp_path) as other:
        assert (one, other) == (["w1"], [])


def test_a_home_that_never_had_workers_has_none(tmp_path: Path) -> None:
    with abandoned_workers(tmp_path / "new") as found:
        assert found == []
