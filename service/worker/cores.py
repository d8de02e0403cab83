"""How many processor cores this process may use, which in a container is not what it sees."""

import math
import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota_file: Path = _CGROUP_QUOTA) -> int:
    """The lesser of the affinity mask and the control group's quota, at least 1."""
    return max(1, min(_affinity(), _quota(quota_file) or os.cpu_count() or 1))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(path: Path) -> int | None:
    """Cores granted by ``<quota> <period>`` microseconds; None for `max` or no control group."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return None
