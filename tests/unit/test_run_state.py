"""The file of a run's state: whole or not there, and never taken for another's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoints import CheckpointPlan, Checkpoints
from model.randomness import random_state
from model.run_state import FORMAT, RunState, UnusableStateError, load_state, save_state
from model.state_file import ABANDONED_S, BrokenFileError, read_tensors, write_tensors
from model.train_result import EpochReport

JOB = {"seed": 3, "labels": ["a", "b"], "dropout": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.safetensors"


def make_state(epoch: int = 1) -> RunState:
    return RunState(
        epoch=epoch,
        batch=2,
        step=9,
        loss_sum=torch.tensor(0.1),
        shuffler={"bit_generator": "PCG64", "state": {"state": 2**100 + 1}},
        random=random_state(torch.device("cpu")),
        network={"encoder.weight": torch.arange(6.0).reshape(2, 3)},
        optimizer={0: {"step": torch.tensor(9.0)}, 11: {"exp_avg": torch.ones(2)}},
        average={"encoder.weight": torch.ones(2, 3)},
        max_tokens=48,
        best=None,
        reports=(EpochReport(0, {"loss": 0.1, "learning_rate": 1e-05 / 3}),),
        train_seconds=1.5,
        evaluation_seconds=0.5,
    )


def test_a_state_comes_back_as_it_was(path: Path) -> None:
    state = make_state()
    save_state(path, state, JOB)
    found = load_state(path, dict(reversed(JOB.items())))
    for name in ("epoch", "batch", "step", "shuffler", "max_tokens", "reports", "train_seconds"):
        assert getattr(found, name) == getattr(state, name)
    assert found.loss_sum.equal(state.loss_sum)
    assert found.network["encoder.weight"].equal(state.network["encoder.weight"])
    assert found.average["encoder.weight"].equal(state.average["encoder.weight"])
    assert found.optimizer.keys() == {0, 11}
    assert found.optimizer[11]["exp_avg"].tolist() == [1, 1]
    assert found.random.cpu.equal(state.random.cpu)
    assert found.random.host == state.random.host
    assert (found.random.cuda, found.best) == (None, None)


def test_every_type_and_shape_of_tensor_comes_back(path: Path) -> None:
    types = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    tensors = {str(dtype): torch.tensor([[0, 1], [1, 1]]).to(dtype) for dtype in types}
    tensors |= {
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "odd": torch.ones(5, dtype=torch.uint8),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "trained": torch.ones(2, requires_grad=True),
    }
    write_tensors(path, tensors, {"title": "ünïcode"})
    found, metadata = read_tensors(path)
    assert metadata == {"title": "ünïcode"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].equal(tensor)
    assert load_file(path).keys() == tensors.keys()  # any other tool reads it too


def test_what_was_read_does_not_hang_on_the_file(path: Path) -> None:
    write_tensors(path, {"a": torch.ones(1000)}, {})
    found, _ = read_tensors(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert found["a"].sum() == 1000


@pytest.mark.parametrize("place", ["title", "content", "shape"])
def test_a_change_anywhere_is_noticed(path: Path, place: str) -> None:
    write_tensors(path, {"a": torch.zeros(2, 3), "b": torch.ones(4)}, {"title": "first"})
    content = path.read_bytes()
    changed = {
        "title": content.replace(b'"first"', b'"other"'),
        "content": content[:-1] + bytes([content[-1] ^ 1]),
        "shape": content.replace(b"[2,3]", b"[3,2]"),
    }[place]
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(BrokenFileError, match="checksum"):
        read_tensors(path)


def test_a_state_of_another_version_or_maker_says_so(path: Path) -> None:
    save_file({"weight": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(UnusableStateError, match="no checksum"):
        load_state(path, JOB)
    write_tensors(path, {"weight": torch.ones(2)}, {"format": "bertune-run-state-0"})
    with pytest.raises(UnusableStateError, match="another version"):
        load_state(path, JOB)
    write_tensors(path, {"weight": torch.ones(2)}, {"format": FORMAT, "job": "{}"})
    with pytest.raises(UnusableStateError, match="other dropout, labels, seed"):
        load_state(path, JOB)


def test_a_folder_in_the_files_place_is_a_problem_and_not_a_crash(path: Path) -> None:
    path.mkdir()
    checkpoints = Checkpoints(CheckpointPlan(path, resume=path), JOB)
    assert checkpoints.load() is None
    assert not checkpoints.save(make_state())
    assert [problem.partition(":")[0] for problem in checkpoints.problems] == [
        "checkpoint_ignored",
        "checkpoint_failed",
    ]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# Says that it is about to publish the file, and then waits to be killed.
SAVE_AND_WAIT = """
import sys, time, torch
import model.state_file as state_file
def wait(descriptor):
    print("writing", flush=True)
    time.sleep(600)
state_file.os.fsync = wait
state_file.write_tensors(state_file.Path(sys.argv[1]), {"a": torch.zeros(100_000)}, {})
"""


def test_a_process_killed_while_it_saves_leaves_the_older_state(path: Path) -> None:
    write_tensors(path, {"a": torch.ones(100_000)}, {})
    with subprocess.Popen(
        [sys.executable, "-c", SAVE_AND_WAIT, str(path)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"writing\n"
        finally:
            child.send_signal(signal.SIGKILL)
    found, _ = read_tensors(path)
    assert found["a"].sum() == 100_000

    (left,) = set(path.parent.iterdir()) - {path}
    write_tensors(path, {"a": torch.ones(1)}, {})
    assert left.exists()  # it may be another process's that is still writing
    long_ago = time.time() - ABANDONED_S - 1
    os.utime(left, (long_ago, long_ago))
    write_tensors(path, {"a": torch.ones(1)}, {})
    assert set(path.parent.iterdir()) == {path}


def test_a_full_disk_is_a_problem_with_advice_and_the_older_state_stands(small_disk: Path) -> None:
    path = small_disk / "state.safetensors"
    checkpoints = Checkpoints(CheckpointPlan(path), JOB)
    assert checkpoints.save(make_state(epoch=1))
    (small_disk / "ballast").write_bytes(bytes(2**20 - 2**17))
    large = make_state(epoch=2)
    large.network["more"] = torch.ones(2**17)
    assert not checkpoints.save(large)
    assert not checkpoints.save(large)
    (problem,) = checkpoints.problems
    assert problem.startswith("disk_full: ")
    assert "Free some space" in problem
    assert load_state(path, JOB).epoch == 1
    assert {file.name for file in small_disk.iterdir()} == {path.name, "ballast"}


def test_a_save_is_due_when_the_interval_is_over_since_the_last_try(path: Path) -> None:
    times_s = [100.0, 159.0, 160.0, 163.0, 222.0, 223.0]  # begun, asked twice, tried, asked twice
    plan = CheckpointPlan(path / "no such folder", every_s=60)
    checkpoints = Checkpoints(plan, JOB, clock=lambda: times_s.pop(0))
    assert [checkpoints.due(), checkpoints.due()] == [False, True]
    assert not checkpoints.save(make_state())
    assert [checkpoints.due(), checkpoints.due()] == [False, True]
    assert not Checkpoints(None, {}, clock=lambda: 1e9).due()
