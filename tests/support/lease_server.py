"""A scripted server, and real agents with real trainer processes that work for it.

The trainer is `fake_trainer`, which learns nothing; what it does in its second epoch is said by
the text of the first training row.
"""

import asyncio
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from real_parts import SEARCHED
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model.normalised_file import SCHEMA

WAIT_S = 60
LABELS = ["a", "b"]

LAUNCH = """
import json, logging, sys
from pathlib import Path
import service.worker.agent as agent, service.worker.slot as slot
from service.settings import Settings
options = json.loads(sys.argv[1])
slot.CANCEL_GRACE_S, slot.ROOM_LOOK_S, slot.FIRST_ABSENCE_S = 0.5, 0.1, 0.1
logging.basicConfig(level=logging.INFO, format="%(message)s")
status = agent.run_worker(
    server=options["server"], key=options["key"], cache=Path(options["cache"]), name="w1",
    slots=options["slots"], until_idle_s=options["until_idle_s"], trainer_module=options["trainer"],
    settings=Settings(**options["settings"]),
)
assert not {"torch", "transformers", "optuna"} & set(sys.modules), "the agent loaded too much"
sys.exit(status)
"""


def parquet(text: str) -> bytes:
    columns = {"row": [1, 2], "text_a": [text, "x"], "text_b": [None, None], "label": LABELS}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), buffer)
    return buffer.getvalue()


class LeaseServer:
    """Hands out the leases that a test puts in, and keeps what a worker says of them."""

    def __init__(self) -> None:
        self.waiting: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.files: dict[str, bytes] = {}
        self.claims: list[dict[str, Any]] = []
        self.renewals: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self._sent: SimpleQueue[str] = SimpleQueue()
        self._senders: list[str] = []
        self.ends: SimpleQueue[tuple[str, str, dict[str, Any]]] = SimpleQueue()
        """``(trial, kind of end, body)`` in the order they came."""
        self.on_renew: Callable[[dict[str, Any]], str | int] = lambda body: "continue"
        """The action to answer with, or a status to fail with."""
        self.uploads_open = threading.Event()
        """Uploads are answered once it is set."""
        self.uploads_open.set()
        self.end_s = 0.0
        """How long the end of a trial takes."""
        self.goodbyes: list[str] = []
        self.status = 0
        """A status to answer everything with; 0 answers as it should."""
        routes = [
            Route("/v1/leases", self._claim, methods=["POST"]),
            Route("/v1/leases/{trial}/{attempt}", self._renew, methods=["PUT"]),
            Route("/v1/leases/{trial}/{attempt}/artifacts/{name}", self._upload, methods=["PUT"]),
            Route("/v1/leases/{trial}/{attempt}/{end}", self._end, methods=["POST"]),
            Route("/v1/workers/{name}/stopped", self._goodbye, methods=["POST"]),
            Route("/files/{name}", self._file),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="error", lifespan="off", ws="none"
        )
        self._server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.uploads_open.set()
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()

    def add_lease(self, trial: str, text: str = "fine", **changes: Any) -> None:
        """Queue a lease whose first training row is ``text``."""
        lease: dict[str, Any] = {
            "trial_id": trial,
            "attempt": 1,
            "kind": "train",
            "study_id": "s1",
            "study_name": "study",
            "number": 0,
            "config": {"model": "scratch:tiny", "epochs": 3, "metric": "macro_f1"},
            "dataset": {
                "id": "d1",
                "labels": LABELS,
                "files": {
                    "train": self.remote(f"train-{text}", parquet(text)),
                    "validation": self.remote("validation", parquet("v")),
                    "test": self.remote("test", parquet("t")),
                },
                "indices": None,
            },
            "model": {"kind": "scratch", "name": "scratch:tiny", "key": "scratch:tiny"},
            "split": "validation",
            "lease_s": 3,
            "renew_s": 0.1,
            "lease_expires_at": "2026-01-01T00:00:00Z",
        }
        self.waiting.put({**lease, **changes})

    def remote(self, name: str, content: bytes) -> dict[str, Any]:
        self.files[name] = content
        digest = hashlib.sha256(content).hexdigest()
        return {"path": name, "url": f"/files/{name}", "sha256": digest, "bytes": len(content)}

    def epochs(self) -> list[int]:
        """Every epoch that was reported, in order."""
        return [report["epoch"] for body in self.renewals for report in body["reports"]]

    def end(self, within_s: float = WAIT_S) -> tuple[str, str, dict[str, Any]]:
        """The next end of a trial that a worker tells of."""
        return self.ends.get(timeout=within_s)

    def await_upload(self) -> str:
        """The name of the next file that has come, whether or not it is answered yet."""
        return self._sent.get(timeout=WAIT_S)

    def senders(self) -> list[str]:
        """The trial of every file that has come, in order."""
        return list(self._senders)

    async def _claim(self, request: Request) -> Response:
        self.claims.append(await request.json())
        if self.status:
            return self._error(self.status)
        try:
            return JSONResponse(self.waiting.get_nowait())
        except Empty:
            return Response(status_code=204)

    async def _renew(self, request: Request) -> Response:
        body = await request.json()
        self.renewals.append(body)
        answer = self.status or self.on_renew(body)
        if isinstance(answer, int):
            return self._error(answer)
        times = {"lease_s": 3, "renew_s": 0.1, "lease_expires_at": "2026-01-01T00:00:00Z"}
        return JSONResponse({"action": answer, **times})

    async def _upload(self, request: Request) -> Response:
        content = await request.body()
        self._senders.append(request.path_params["trial"])
        self._sent.put(request.path_params["name"])
        await asyncio.to_thread(self.uploads_open.wait)
        self.uploads[request.path_params["name"]] = content
        return Response(status_code=204)

    async def _goodbye(self, request: Request) -> Response:
        self.goodbyes.append(request.path_params["name"])
        return Response(status_code=204)

    async def _end(self, request: Request) -> Response:
        if self.status:
            return self._error(self.status)
        parameters = request.path_params
        body = await request.json()
        await asyncio.sleep(self.end_s)
        self.ends.put((parameters["trial"], parameters["end"], body))
        again = parameters["end"] == "release" or body.get("retry", False)
        return JSONResponse({"state": "queued" if again else "completed", "attempt": 1})

    async def _file(self, request: Request) -> Response:
        return Response(self.files[request.path_params["name"]])

    def _error(self, status: int) -> Response:
        code = "lease_lost" if status == 409 else "told_to_fail"
        return JSONResponse({"error": code, "detail": "as told", "where": []}, status)


class Agent:
    """An agent process and its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def await_line(self, text: str, times: int = 1) -> list[str]:
        """Wait until ``text`` stands in so many lines of the log; those lines."""
        with self._came:
            assert self._came.wait_for(lambda: len(self._with(text)) >= times, WAIT_S), self.log
            return self._with(text)

    def trainer_pid(self, times: int = 1) -> int:
        """The process id of the trainer that was started as the first, second, …"""
        line = self.await_line("started", times)[times - 1]
        return int(line.split("trainer ")[1].split()[0])

    def exit_status(self) -> int:
        status = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return status

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def close(self) -> None:
        self.process.kill()
        self.exit_status()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _with(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._came:
                self.lines.append(line.rstrip())
                self._came.notify_all()


@contextmanager
def lease_server() -> Iterator[LeaseServer]:
    server = LeaseServer()
    server.start()
    try:
        yield server
    finally:
        server.close()


StartAgent = Callable[..., Agent]


@contextmanager
def agents(server: LeaseServer, cache: Path) -> Iterator[StartAgent]:
    """``start(**changes)`` starts an agent named w1; those that run are killed at the end.

    ``within`` is the folder of a control group to start it in.
    """
    started: list[Agent] = []

    def start(
        *, settings: dict[str, Any] | None = None, within: Path | None = None, **changes: Any
    ) -> Agent:
        options = {
            "server": server.url,
            "key": "k1",
            "slots": 1,
            "cache": str(cache),
            "until_idle_s": None,
            "trainer": "fake_trainer",
            "settings": settings or {},
            **changes,
        }
        command = [sys.executable, "-c", LAUNCH, json.dumps(options)]
        if within is not None:
            enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
            command = ["sh", "-c", enter, str(within), *command]
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": SEARCHED},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Agent(process))
        return started[-1]

    try:
        yield start
    finally:
        for agent in started:
            agent.close()


def is_gone(pid: int, within_s: float = 5) -> bool:
    """Whether the process ends in time (a zombie of init's counts)."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        threading.Event().wait(0.05)
    return False
