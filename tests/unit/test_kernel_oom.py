"""The kernel's counters of what it killed for want of memory."""

from pathlib import Path

import pytest

from service.worker.kernel_oom import KernelOom

EVENTS = "low 0\nhigh 0\nmax 31\noom 2\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
VMSTAT = "nr_free_pages 1204\noom_kill {}\nthp_fault_alloc 3\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path / "proc"


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def write(path: Path, text: str, kills: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(kills))


@pytest.mark.parametrize(
    ("groups", "counter", "text"),
    [
        ("0::/system.slice/worker\n", "system.slice/worker/memory.events", EVENTS),
        ("0::/docker/4a0f\n", "memory.events", EVENTS),  # a container sees its group as the root
        ("4:cpu,cpuacct:/x\n9:memory:/job\n", "memory/job/memory.oom_control", CONTROL),
        ("9:memory:/docker/4a0f\n", "memory/memory.oom_control", CONTROL),
    ],
)
def test_a_kill_in_the_control_group_is_seen_once(
    proc: Path, cgroups: Path, groups: str, counter: str, text: str
) -> None:
    (proc / "self" / "cgroup").write_text(groups)
    write(cgroups / counter, text, 3)
    oom = KernelOom(proc, cgroups)
    assert not oom.killed()
    write(cgroups / counter, text, 4)
    assert oom.killed()
    oom.look()
    assert not oom.killed()


def test_a_kill_elsewhere_on_the_machine_is_not_the_control_groups(
    proc: Path, cgroups: Path
) -> None:
    (proc / "self" / "cgroup").write_text("0::/job\n")
    write(cgroups / "job" / "memory.events", EVENTS, 0)
    write(proc / "vmstat", VMSTAT, 0)
    oom = KernelOom(proc, cgroups)
    write(proc / "vmstat", VMSTAT, 1)
    assert not oom.killed()


def test_without_a_control_group_the_machine_counts(proc: Path, cgroups: Path) -> None:
    write(proc / "vmstat", VMSTAT, 7)
    oom = KernelOom(proc, cgroups)
    write(proc / "vmstat", VMSTAT, 8)
    assert oom.killed()


def test_a_machine_that_does_not_count_saw_no_kill(proc: Path, cgroups: Path) -> None:
    assert not KernelOom(proc, cgroups).killed()
