"""A server for tests of streams: the real application behind a real socket, in this process.

The test client collects an answer before it hands it out, which a stream does not bear.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from real_parts import until

from service.app import create_app
from service.context import ServerContext
from service.settings import Settings
from service.store.database import Database
from studies.event_stream import EventParser, Message

WAIT_S = 60.0


class LiveServer:
    """Its address, its key, and a view behind the scenes."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket, context: ServerContext):
        self.context = context
        self.port = int(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = server
        self._thread = threading.Thread(target=server.run, args=([listener],))

    @property
    def headers(self) -> dict[str, str]:
        key = self.context.settings.admin_key_file.read_text().strip()
        return {"Authorization": f"Bearer {key}"}

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, headers=self.headers, timeout=WAIT_S, trust_env=False
        )

    def start(self) -> None:
        self._thread.start()
        until(lambda: self._server.started and self.context.feed.safe is not None)

    def stop(self) -> None:
        self.context.release_polls()
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


@contextmanager
def live_server(database: Database, home: Path, **settings: Any) -> Iterator[LiveServer]:
    url = database.url.render_as_string(hide_password=False)
    app = create_app(Settings(home=home, database_url=url, **settings))
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5, ws="none")
    listener = socket.create_server(("127.0.0.1", 0), backlog=500)
    server = LiveServer(uvicorn.Server(config), listener, app.state.context)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        listener.close()


class Listener:
    """Reads one stream from a thread of its own."""

    def __init__(self, client: httpx.Client, path: str, last_id: str = "", **params: Any) -> None:
        self.parser = EventParser(last_id)
        self.messages: list[Message] = []
        self.status = 0
        self.headers = httpx.Headers()
        self.raw = b""
        self._client = client
        self._path, self._params = path, params
        self._sent = {"Last-Event-ID": last_id} if last_id else {}
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._opened.wait(WAIT_S)

    @property
    def types(self) -> list[str]:
        return [message.type for message in self.messages]

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def await_types(self, *types: str) -> None:
        until(lambda: self.types == list(types), lambda: str(self.types), within_s=WAIT_S)

    def await_type(self, kind: str) -> None:
        until(lambda: kind in self.types, lambda: str(self.types), within_s=WAIT_S)

    def await_end(self) -> None:
        self._thread.join(WAIT_S)
        assert self.over

    def _read(self) -> None:
        try:
            with self._client.stream(
                "GET", self._path, params=self._params, headers=self._sent
            ) as answer:
                self.status, self.headers = answer.status_code, answer.headers
                self._opened.set()
                for chunk in answer.iter_raw():
                    self.raw += chunk
                    self.messages.extend(self.parser.feed(chunk))
        except httpx.TransportError:
            pass
        finally:
            self._opened.set()
