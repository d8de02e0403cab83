"""The import rules hold in the running interpreter, not only in the source."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_after(statement: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter that ran ``statement``."""
    code = f"{statement}\nimport sys\nprint(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import model.config", {"torch", "numpy", "fastapi", "sqlalchemy", "optuna", "httpx"}),
        (
            "import model.data, model.splits",
            {"torch", "transformers", "fastapi", "optuna", "httpx"},
        ),
        ("import model.training", {"fastapi", "sqlalchemy", "optuna", "service", "studies"}),
        ("import studies", {"torch", "optuna", "httpx", "pydantic", "sqlalchemy"}),
        ("from studies import Client, StudySpec", {"torch", "optuna", "sqlalchemy", "fastapi"}),
        ("import service.app", {"torch", "transformers", "sklearn"}),
        ("import service.cli", {"torch", "transformers", "optuna", "fastapi", "sqlalchemy"}),
        ("import service.worker.agent", {"torch", "transformers", "optuna", "sqlalchemy"}),
    ],
)
def test_an_import_brings_in_nothing_it_must_not(statement: str, unwanted: set[str]) -> None:
    assert modules_after(statement) & unwanted == set()


def test_one_package_imports_optuna() -> None:
    importers = {
        path.parent.relative_to(ROOT).as_posix()
        for package in ("model", "studies", "service")
        for path in (ROOT / package).rglob("*.py")
        if any(
            line.lstrip().startswith(("import optuna", "from optuna"))
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    }
    assert importers == {"studies/search"}
