"""How a trainer process begins and ends."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from real_parts import SEARCHED

from service.worker.pipe import Ready, decode_from_trainer
from service.worker.trainer_process import (
    MEMORY_KEPT,
    SHAPES,
    SHAPES_KEPT,
    Exited,
    TrainerProcess,
    Wake,
    trainer_command,
    trainer_env,
)

WAIT_S = 60
IMPORT_S = 120
"""A real trainer imports torch, which takes its time on a busy machine."""


def command(module: str = "fake_trainer", device: str = "cpu") -> list[str]:
    return trainer_command(module, device=device, slot=0, threads=1, cache_bytes=0)


def env() -> dict[str, str]:
    return trainer_env({**os.environ, "PYTHONPATH": SEARCHED}, threads=1)


@contextmanager
def trainer(module: str = "fake_trainer", device: str = "cpu") -> Iterator[TrainerProcess]:
    process = TrainerProcess(command(module, device), env(), slot=0)
    try:
        yield process
    finally:
        process.kill()


def test_a_trainer_ends_with_its_input_and_has_said_nothing_but_messages() -> None:
    done = subprocess.run(command(), env=env(), input=b"", capture_output=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 1  # the end of input may come first
    assert all(isinstance(decode_from_trainer(line), Ready) for line in lines)


def test_a_trainer_whose_parent_is_gone_does_not_begin() -> None:
    orphan = command()
    orphan[orphan.index("--parent") + 1] = "1"
    done = subprocess.run(orphan, env=env(), input=b"", capture_output=True, timeout=WAIT_S)
    assert done.returncode == 1
    assert b"not the parent" in done.stderr
    assert done.stdout == b""


def test_a_killed_trainer_is_heard_of_with_its_signal() -> None:
    with trainer() as process:
        assert isinstance(process.receive(WAIT_S), Ready)
        process.kill()
        exited = process.receive(WAIT_S)
        assert isinstance(exited, Exited)
        assert exited.reason.startswith("was killed by SIGKILL")
        assert not process.alive


def test_a_trainer_that_was_told_to_die_is_not_worked_with_any_more() -> None:
    with trainer() as process:
        assert isinstance(process.receive(WAIT_S), Ready)
        process.begin_kill()
        assert not process.alive  # though it may take a GPU's process seconds to be gone
        assert isinstance(process.receive(WAIT_S), Exited)


def test_what_a_process_says_that_is_no_message_ends_it() -> None:
    talkative = [sys.executable, "-c", "import time; print('hello', flush=True); time.sleep(60)"]
    process = TrainerProcess(talkative, env(), slot=0)
    try:
        exited = process.receive(WAIT_S)
        assert isinstance(exited, Exited)
        assert "not a message of a trainer: b'hello" in exited.tail
    finally:
        process.kill()


def test_a_waiting_thread_can_be_woken() -> None:
    with trainer() as process:
        assert isinstance(process.receive(WAIT_S), Ready)
        process.wake()
        assert isinstance(process.receive(WAIT_S), Wake)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_ends_the_real_trainer_with_status_2() -> None:
    with trainer("service.worker.trainer", device="cuda") as process:
        exited = process.receive(IMPORT_S)
        assert isinstance(exited, Exited)
        assert exited.status == 2
        assert "no_cuda" in exited.tail


def test_a_trainer_gets_its_threads_and_not_the_key() -> None:
    found = trainer_env({"BERTUNE_KEY": "secret", "PATH": "/bin"}, threads=3)
    assert "BERTUNE_KEY" not in found
    assert (found["PATH"], found["OMP_NUM_THREADS"]) == ("/bin", "3")


def test_a_trainer_keeps_its_memory_unless_its_user_tuned_that_otherwise() -> None:
    assert trainer_env({}, threads=1)["GLIBC_TUNABLES"] == MEMORY_KEPT
    own = "glibc.malloc.arena_max=1"
    assert trainer_env({"GLIBC_TUNABLES": own}, threads=1)["GLIBC_TUNABLES"] == own


def test_a_trainer_keeps_kernels_of_many_shapes_unless_its_user_says_how_many() -> None:
    assert trainer_env({}, threads=1)[SHAPES] == SHAPES_KEPT
    assert trainer_env({SHAPES: "64"}, threads=1)[SHAPES] == "64"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its settings are glibc's")
def test_memory_that_was_freed_is_taken_again_without_the_system() -> None:
    """What a training step does: blocks of megabytes, each time anew."""
    script = (
        "import resource\n"
        "for _ in range(3):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(10):\n"
        "        blocks = [bytearray(2**20) for _ in range(8)]\n"
        "        del blocks\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )

    def faults(env: dict[str, str]) -> int:
        ran = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
        )
        return int(ran.stdout)

    kept = trainer_env(os.environ, threads=1)
    assert faults(kept) < 10 < faults({**kept, "GLIBC_TUNABLES": ""})
