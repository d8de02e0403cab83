"""The environment of the processes that a comparison starts."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[3]
"""The repository, whose packages need not be installed where a benchmark runs."""


def child_environment() -> dict[str, str]:
    """This process's environment with the repository and the benchmark to import from, and
    without any setting of a Bertune that runs beside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTUNE_")}
    paths = [str(ROOT), str(ROOT / "tests/bench"), os.environ.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
