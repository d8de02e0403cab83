"""Small models and a small task for the training tests; built here, so nothing is downloaded."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_models import make_examples, write_encoder

from model.normalised_file import Examples


@pytest.fixture(scope="session")
def examples() -> Callable[[int, int], Examples]:
    return make_examples


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[[str], Path]:
    """Write a tiny encoder of the given model type, random weights and no classification head."""

    def build(model_type: str) -> Path:
        return write_encoder(tmp_path / model_type, model_type)

    return build


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
