"""A server that is started while PostgreSQL is away, as after a restart of the whole machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from real_databases import database, make_postgresql, migrated_postgresql, postgresql_url
from real_parts import until
from sqlalchemy.engine import URL
from tcp_proxy import TcpProxy, proxied

from service.store.database import Database

__all__ = ["database", "make_postgresql", "migrated_postgresql", "postgresql_url"]


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.fixture
def away(database: Database) -> Iterator[tuple[TcpProxy, URL]]:
    with proxied(database.url) as (proxy, url):
        proxy.refuse()
        yield proxy, url


class Server:
    def __init__(self, folder: Path, database: URL, port: int) -> None:
        self._log = folder / "serve.log"
        command = [sys.executable, "-m", "service.cli", "serve", "--home", str(folder / "home")]
        kept = {name: value for name, value in os.environ.items() if "BERTUNE_" not in name}
        own = {"BERTUNE_DATABASE_URL": database.render_as_string(hide_password=False)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)], env={**kept, **own}, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def await_line(self, text: str) -> None:
        def said() -> bool:
            assert self.process.poll() is None, self.log
            return text in self.log

        until(said, lambda: self.log)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[URL, int], Server]]:
    started: list[Server] = []

    def start(database: URL, port: int) -> Server:
        started.append(Server(tmp_path, database, port))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait(20)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays ours while no server listens on it."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_server_that_starts_before_its_database_serves_once_that_is_there(
    away: tuple[TcpProxy, URL], port: int, serve: Callable[[URL, int], Server]
) -> None:
    proxy, url = away
    server = serve(url, port)
    server.await_line("The server starts once it answers")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            client.get("/healthz")
        proxy.go_on()
        server.await_line("Application startup complete")
        assert client.get("/readyz").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0, server.log
    assert "Traceback" not in server.log, server.log


def test_ctrl_c_ends_a_server_that_waits_for_its_database(
    away: tuple[TcpProxy, URL], port: int, serve: Callable[[URL, int], Server]
) -> None:
    server = serve(away[1], port)
    server.await_line("The server starts once it answers")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(20) == 130, server.log
    assert "Traceback" not in server.log, server.log
