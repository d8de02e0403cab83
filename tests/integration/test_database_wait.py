"""What a server that starts makes of a database that is away, and of one that will not have it."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, ProgrammingError
from tcp_proxy import proxied

from service.local.database_wait import await_database
from service.settings import Settings
from service.store.database import Database
from service.store.patience import outlast
from service.store.pulse import beat
from service.store.schema import current_revision, head_revision, upgrade

STARTING_UP = """
import socket
encryption = [code.to_bytes(4, "big") for code in (80877103, 80877104)]  # TLS, GSSAPI
text = b"SFATAL\\0VFATAL\\0C57P03\\0Mthe database system is starting up\\0\\0"
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    with client:
        while (asked := client.recv(1000))[4:8] in encryption:
            client.sendall(b"N")
        if asked:
            client.sendall(b"E" + (4 + len(text)).to_bytes(4, "big") + text)
"""
"""A program: tells everybody that asks that the database is starting up."""


@pytest.fixture
def kind() -> str:
    """A file of SQLite's is there or cannot be made."""
    return "postgresql"


def settings_for(url: URL, home: Path) -> Settings:
    return Settings(home=home, database_url=url.render_as_string(hide_password=False))


def never(pause_s: float) -> None:
    pytest.fail(f"nothing had to be waited for, and {pause_s} s were")


def test_a_start_waits_longer_each_time_until_the_database_answers(
    empty_database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pauses_s: list[float] = []
    with proxied(empty_database.url) as (proxy, url):
        proxy.refuse()

        def sleep(pause_s: float) -> None:
            pauses_s.append(pause_s)
            if len(pauses_s) == 7:
                proxy.go_on()

        with caplog.at_level(logging.INFO):
            await_database(settings_for(url.set(password="secret"), tmp_path), sleep=sleep)
    assert pauses_s == [1, 2, 4, 8, 16, 30, 30]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 7
    assert "refused" in lines[0]
    assert lines[0].endswith("The server starts once it answers; trying again in 1 s.")
    assert "secret" not in caplog.text


def test_a_database_that_is_not_there_is_said_at_once(
    empty_database: Database, tmp_path: Path
) -> None:
    url = empty_database.url.set(database="no_such_database")
    with pytest.raises(OperationalError, match="no_such_database"):
        await_database(settings_for(url, tmp_path), sleep=never)


def test_a_user_whom_the_server_does_not_know_is_said_at_once(
    empty_database: Database, tmp_path: Path
) -> None:
    url = empty_database.url.set(username="nobody_we_know")
    with pytest.raises(OperationalError, match="nobody_we_know"):
        await_database(settings_for(url, tmp_path), sleep=never)


def test_a_server_that_is_starting_up_is_waited_for_until_ctrl_c(tmp_path: Path) -> None:
    pauses_s: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses_s.append(pause_s)
        if len(pauses_s) == 2:
            raise KeyboardInterrupt

    with starting_up() as port:
        url = URL.create("postgresql+psycopg", "me", host="127.0.0.1", port=port, database="it")
        with pytest.raises(KeyboardInterrupt):
            await_database(settings_for(url, tmp_path), sleep=sleep)
    assert pauses_s == [1, 2]


@contextmanager
def starting_up() -> Iterator[int]:
    """The port of a server that is starting up; a process, as the driver's ping stops threads."""
    command = [sys.executable, "-c", STARTING_UP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "bertune.db").mkdir()
    with pytest.raises(OperationalError, match="unable to open"):
        await_database(Settings(home=tmp_path, database_url=None), sleep=never)


def test_a_start_whose_database_goes_away_in_its_midst_begins_again(
    empty_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with proxied(empty_database.url) as (proxy, url):
        database = Database(url)
        upgrade(database)
        steps: list[str | None] = []

        def start() -> None:
            if not steps:
                proxy.refuse()
                database.engine.dispose()
            steps.append(None)
            steps[-1] = current_revision(database)

        outlast(start, sleep=lambda _: proxy.go_on())
        database.dispose()
    assert steps == [None, head_revision()]
    assert "The database is away: " in caplog.text


def test_a_start_is_not_tried_again_for_what_time_does_not_mend(empty_database: Database) -> None:
    with pytest.raises(ProgrammingError, match="server_pulse"), empty_database.reading() as session:
        outlast(lambda: beat(session), sleep=never)
