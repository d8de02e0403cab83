"""The same spec and seed give the same study, on the same home and on another one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from real_parts import serving, submit, tickets, until, working

from studies.api import Api

SPACE: dict[str, Any] = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 3e-3, "log": True},
    "batch_size": {"type": "categorical", "choices": [16, 32]},
    "max_length": {"type": "int", "low": 8, "high": 16, "step": 4},
}


@contextmanager
def fresh_home(folder: Path) -> Iterator[Api]:
    """A server and one worker that know nothing yet."""
    folder.mkdir()
    with (
        serving(folder / "home", folder) as server,
        working(*server, folder),
        Api(*server) as client,
    ):
        yield client


def run_study(client: Api, data: Path, name: str) -> list[tuple[Any, ...]]:
    """Everything that each of four trials chose and measured."""
    study = submit(
        client,
        data,
        name=name,
        seed=5,
        search_space=SPACE,
        training={"epochs": 2},
        pruner={"name": "median", "n_startup_trials": 1},
        budget={"n_trials": 4},
    )
    until(lambda: client.study(study).finished_at)
    trials = [client.trial(study, number) for number in range(4)]
    return [(trial.state, trial.params, trial.value, trial.epochs) for trial in trials]


def test_identical_studies_give_equal_parameters_and_metrics(tmp_path: Path) -> None:
    data = tickets(tmp_path)
    with fresh_home(tmp_path / "one") as client:
        first = run_study(client, data, "first")
        second = run_study(client, data, "second")
    with fresh_home(tmp_path / "two") as client:
        third = run_study(client, data, "third")

    assert [trial[0] for trial in first].count("completed") >= 1
    assert len({str(trial[1]) for trial in first}) == 4
    assert first == second
    assert first == third
