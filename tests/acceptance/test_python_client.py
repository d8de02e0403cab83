"""What people do in Python, with a real server and a real worker: the README's example, the example
notebook, and the client that is awaited."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from command_line import ROOT, clean_environment
from nbclient import NotebookClient
from real_parts import SEARCHED, tickets, working

from studies import AsyncClient, StudySpec
from studies.handles.study import AsyncStudy

NOTEBOOK = ROOT / "studies" / "examples" / "first-study.ipynb"
README_EXAMPLE = re.compile(r"and from Python:\n\n```python\n(.*?)```", re.S)
PNG = "image/png"

Server = tuple[str, str]


@pytest.fixture(scope="module")
def staffed(cli_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``(url, admin key)`` of a server with a worker."""
    with working(*cli_server, tmp_path_factory.mktemp("worker")):
        yield cli_server


def test_the_readmes_example_runs_as_it_stands(staffed: Server, tmp_path: Path) -> None:
    found = README_EXAMPLE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found
    tickets(tmp_path)
    own = {"BERTUNE_SERVER": staffed[0], "BERTUNE_KEY": staffed[1], "PYTHONPATH": SEARCHED}
    done = subprocess.run(
        [sys.executable, "-c", found[1]],
        cwd=tmp_path,
        env=clean_environment(MPLBACKEND="agg", **own),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[20 rows x" in done.stdout
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_the_example_notebook_runs_from_its_first_cell_to_its_last(
    staffed: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"BERTUNE_SERVER": staffed[0], "BERTUNE_KEY": staffed[1], "PYTHONPATH": SEARCHED}
    for name, value in {**own, "TRIALS": "2", "EPOCHS": "1"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]
    assert PNG in shown  # the plot
    assert shown.count("text/html") >= 2  # the study, and the frame
    [model] = tmp_path.glob("model-*")
    assert (model / "config.json").is_file()


def test_the_committed_notebook_holds_no_output() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_studies_that_are_awaited_run_side_by_side(staffed: Server, tmp_path: Path) -> None:
    data = tickets(tmp_path)

    async def search() -> list[AsyncStudy]:
        async with AsyncClient(*staffed) as client:
            dataset = await client.upload_dataset(data)
            specs = [
                StudySpec.model_validate(
                    {
                        "name": f"awaited-{seed}",
                        "dataset": dataset.id,
                        "seed": seed,
                        "training": {"epochs": 1},
                        "budget": {"n_trials": 1},
                    }
                )
                for seed in range(2)
            ]
            studies = await asyncio.gather(*map(client.submit, specs))
            await asyncio.gather(*(study.wait(timeout_s=200) for study in studies))
            for study in studies:
                assert study.best is not None
                matrix = await study.best.confusion_matrix()
                assert matrix.matrix.sum() == len(await study.trials()) * 18
            return studies

    studies = asyncio.run(search())
    assert [(study.name, study.state) for study in studies] == [
        ("awaited-0", "completed"),
        ("awaited-1", "completed"),
    ]
