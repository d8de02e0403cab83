"""Whether the kernel killed for want of memory: it sends SIGKILL and tells nobody else.

A control group counts the kills among its own processes. Where there is no such count, the whole
machine's stands in.
"""

import re
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


class KernelOom:
    """Counts the kernel's out-of-memory kills since the last look."""

    def __init__(self, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> None:
        self._counters = (*_cgroup_counters(proc, cgroups), proc / "vmstat")
        self._seen = self._count()

    def look(self) -> None:
        """Take what was counted until now for old."""
        self._seen = self._count()

    def killed(self) -> bool:
        """Whether there was a kill since the last look."""
        return self._count() > self._seen

    def _count(self) -> int:
        """From the first counter that can be read; 0 where there is none."""
        for counter in self._counters:
            try:
                found = re.search(r"^oom_kill (\d+)$", counter.read_text("ascii"), re.MULTILINE)
            except (OSError, ValueError):
                continue
            if found is not None:
                return int(found[1])
        return 0


def _cgroup_counters(proc: Path, cgroups: Path) -> list[Path]:
    """Where this process's control group counts, in version 2 and in version 1.

    Inside a container the group's own folder may stand where the hierarchy's root should be.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += [cgroups / group / "memory.events" for group in (path.lstrip("/"), "")]
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            found += [root / group / "memory.oom_control" for group in (path.lstrip("/"), "")]
    return found
