"""A TCP proxy before a database server, so that a test can take the database away and back."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from sqlalchemy.engine import URL

LOOK_S = 0.02
BLOCK_BYTES = 65_536

State = Literal["passing", "refusing", "frozen"]


class TcpProxy:
    """Passes connections on to ``upstream``, an address or the path of a Unix socket."""

    def __init__(self, upstream: tuple[str, int] | str) -> None:
        self._state: State = "passing"
        self._upstream = upstream
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.address: tuple[str, int] = found.getsockname()
        self._closing = threading.Event()
        self._listening = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def start(self) -> None:
        self._threads[0].start()
        assert self._listening.wait(10)

    def refuse(self) -> None:
        """End every connection and refuse new ones."""
        self._state = "refusing"
        assert self._wait_until(lambda: not self._listening.is_set())

    def freeze(self) -> None:
        """Accept everything and pass nothing on."""
        self._state = "frozen"

    def go_on(self) -> None:
        self._state = "passing"
        assert self._listening.wait(10)

    def _wait_until(self, reached: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 10
        while not reached() and time.monotonic() < deadline:
            self._closing.wait(LOOK_S)
        return reached()

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        listener: socket.socket | None = None
        while not self._closing.is_set():
            if self._state == "refusing":
                if listener is not None:
                    listener.close()  # a port that nobody listens on refuses by itself
                    listener = None
                    self._listening.clear()
                self._closing.wait(LOOK_S)
                continue
            if listener is None:
                listener = socket.create_server(self.address)
                self._listening.set()
            if select.select([listener], [], [], LOOK_S)[0]:
                client, _ = listener.accept()
                self._threads.append(threading.Thread(target=self._pass_on, args=(client,)))
                self._threads[-1].start()
        if listener is not None:
            listener.close()

    def _pass_on(self, client: socket.socket) -> None:
        family = socket.AF_UNIX if isinstance(self._upstream, str) else socket.AF_INET
        with client, socket.socket(family, socket.SOCK_STREAM) as server:
            server.connect(self._upstream)
            with contextlib.suppress(ConnectionError):
                while not self._closing.is_set() and self._state != "refusing":
                    if self._state == "frozen":
                        self._closing.wait(LOOK_S)
                    elif not self._pass_block(client, server):
                        return

    def _pass_block(self, client: socket.socket, server: socket.socket) -> bool:
        """False once either side has hung up."""
        for source in select.select([client, server], [], [], LOOK_S)[0]:
            block = source.recv(BLOCK_BYTES)
            if not block:
                return False
            (server if source is client else client).sendall(block)
        return True


@contextlib.contextmanager
def proxied(database: URL) -> Iterator[tuple[TcpProxy, URL]]:
    """A proxy before a PostgreSQL server, and the address of its database behind the proxy."""
    folder = database.query.get("host")
    if isinstance(folder, str):
        upstream: tuple[str, int] | str = f"{folder}/.s.PGSQL.{database.port or 5432}"
    else:
        upstream = (database.host or "127.0.0.1", database.port or 5432)
    proxy = TcpProxy(upstream)
    host, port = proxy.address
    proxy.start()
    try:
        yield proxy, database.set(host=host, port=port, query={})
    finally:
        proxy.close()
