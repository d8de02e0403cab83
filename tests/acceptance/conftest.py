"""Real server processes for tests that need one, and real workers for them."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from command_line import Environment, clean_environment
from real_databases import MakeDatabase, make_postgresql, migrated_postgresql, postgresql_url
from real_parts import SEARCHED, StartWorker, Worker, serving

from studies.api import Api

__all__ = ["make_postgresql", "migrated_postgresql", "postgresql_url"]


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let the processes that tests start hear SIGINT, even when these tests run in the background
    of a shell, whose children inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """``(url, admin key)`` of a server on a fresh home, with ``tmp_path / "models"``."""
    with serving(tmp_path / "home", tmp_path / "models") as server:
        yield server


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose files schedules of the `cli_server` may read."""
    return tmp_path_factory.mktemp("data-root")


@pytest.fixture(scope="module")
def cli_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the `cli_server`."""
    return tmp_path_factory.mktemp("server") / "home"


@pytest.fixture(scope="module")
def cli_server(cli_home: Path, models: Path, data_root: Path) -> Iterator[tuple[str, str]]:
    """``(url, admin key)`` of a server that the tests of a module share."""
    with serving(cli_home, models, data=data_root) as server:
        yield server


@pytest.fixture
def environment(cli_server: tuple[str, str]) -> Iterator[Environment]:
    """What `bertune` needs to find the `cli_server`, whose studies and schedules are removed after
    the test; data sets and workers stay."""
    url, key = cli_server
    yield clean_environment(BERTUNE_SERVER=url, BERTUNE_KEY=key)
    with Api(url, key) as client:
        for schedule in client.schedules():
            client.remove_schedule(schedule.id)
        for study in client.studies():
            client.delete(study.id)


@pytest.fixture
def fake_worker(environment: Environment, tmp_path: Path) -> Iterator[None]:
    """A worker whose trainer learns nothing but says that it did."""
    command = [sys.executable, "-m", "service.cli", "worker", "--trainer", "fake_trainer"]
    own = {"PYTHONPATH": SEARCHED, "BERTUNE_HOME": str(tmp_path / "worker-home")}
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env={**environment, **own}, stderr=log)
    yield
    process.terminate()
    assert process.wait(20) == 0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the local models of `each_server`."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def each_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[tuple[str, str]]:
    """``(url, admin key)`` of a server on SQLite, and then of one on PostgreSQL.

    The tests of a module share it: whoever leaves work to do there takes `client` too.
    """
    folder = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        database = None
        if request.param == "postgresql":
            make: MakeDatabase = request.getfixturevalue("make_postgresql")
            template = request.getfixturevalue("migrated_postgresql")
            database = stack.enter_context(make(template))
        yield stack.enter_context(serving(folder / "home", models, database))


@pytest.fixture
def client(each_server: tuple[str, str]) -> Iterator[Api]:
    """A client of the server; what a test leaves undone there is cancelled after it."""
    with Api(*each_server) as client:
        yield client
        for study in client.studies():
            if study.finished_at is None:
                client.cancel(study.id)


@pytest.fixture
def start(client: Api, each_server: tuple[str, str], tmp_path: Path) -> Iterator[StartWorker]:
    """``start(name, trainer, folder=, url=, slots=)`` starts a worker, which is killed at the end
    before the `client` cancels what it held; the trainer is the real one where none is named."""
    url, key = each_server
    started: list[Worker] = []

    def start(
        name: str = "w1",
        trainer: str | None = None,
        *,
        folder: Path = tmp_path,
        url: str = url,
        slots: int = 1,
    ) -> Worker:
        folder.mkdir(exist_ok=True)
        started.append(Worker(url, key, folder, name, trainer, slots=slots))
        return started[-1]

    yield start
    for worker in started:
        worker.end()
