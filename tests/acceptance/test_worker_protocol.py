"""A real agent process with a real trainer process against a scripted server.

The trainer is `fake_trainer`, which learns nothing; what it does in its second epoch is said by
the text of the first training row.
"""

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model.data import SCHEMA

SUPPORT = Path(__file__).parents[1] / "support"
WAIT_S = 60
LABELS = ["a", "b"]

LAUNCH = """
import json, logging, sys
from pathlib import Path
import service.worker.agent as agent, service.worker.slot as slot
from service.settings import Settings
options = json.loads(sys.argv[1])
slot.CANCEL_GRACE_S = 0.5
logging.basicConfig(level=logging.INFO, format="%(message)s")
status = agent.run_worker(
    server=options["server"], key=options["key"], cache=Path(options["cache"]), name="w1",
    until_idle_s=options["until_idle_s"], trainer_module=options["trainer"],
    settings=Settings(orphan_s=options["orphan_s"]),
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
        self.ends: SimpleQueue[tuple[str, str, dict[str, Any]]] = SimpleQueue()
        """``(trial, kind of end, body)`` in the order they came."""
        self.on_renew: Callable[[dict[str, Any]], str | int] = lambda body: "continue"
        """The action to answer with, or a status to fail with."""
        self.status = 0
        """A status to answer everything with; 0 answers as it should."""
        routes = [
            Route("/v1/leases", self._claim, methods=["POST"]),
            Route("/v1/leases/{trial}/{attempt}", self._renew, methods=["PUT"]),
            Route("/v1/leases/{trial}/{attempt}/artifacts/{name}", self._upload, methods=["PUT"]),
            Route("/v1/leases/{trial}/{attempt}/{end}", self._end, methods=["POST"]),
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

    def end(self) -> tuple[str, str, dict[str, Any]]:
        """The next end of a trial that a worker tells of."""
        return self.ends.get(timeout=WAIT_S)

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
        self.uploads[request.path_params["name"]] = await request.body()
        return Response(status_code=204)

    async def _end(self, request: Request) -> Response:
        if self.status:
            return self._error(self.status)
        parameters = request.path_params
        self.ends.put((parameters["trial"], parameters["end"], await request.json()))
        return JSONResponse({"state": "completed", "attempt": 1})

    async def _file(self, request: Request) -> Response:
        return Response(self.files[request.path_params["name"]])

    def _error(self, status: int) -> Response:
        code = "lease_lost" if status == 409 else "told_to_fail"
        return JSONResponse({"error": code, "detail": "as told", "where": []}, status)


class Worker:
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


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    server = LeaseServer()
    server.start()
    yield server
    server.close()


StartWorker = Callable[..., Worker]


@pytest.fixture
def start(server: LeaseServer, tmp_path: Path) -> Iterator[StartWorker]:
    workers: list[Worker] = []

    def start(**changes: Any) -> Worker:
        options = {
            "server": server.url,
            "key": "k1",
            "cache": str(tmp_path / "cache"),
            "until_idle_s": None,
            "trainer": "fake_trainer",
            "orphan_s": 600,
            **changes,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, json.dumps(options)],
            env={**os.environ, "PYTHONPATH": str(SUPPORT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        workers.append(Worker(process))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def is_gone(pid: int) -> bool:
    """Whether the process ends within a few seconds (a zombie of init's counts)."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        threading.Event().wait(0.05)
    return False


def epochs(server: LeaseServer) -> list[int]:
    return [report["epoch"] for body in server.renewals for report in body["reports"]]


def test_a_trial_is_trained_reported_and_finished(server: LeaseServer, start: StartWorker) -> None:
    server.on_renew = lambda body: "keep_model" if body["value"] else "continue"
    server.add_lease("t1")
    worker = start(until_idle_s=0)

    trial, end, result = server.end()
    assert worker.exit_status() == 0, worker.log
    assert (trial, end, result["state"]) == ("t1", "result", "completed")
    assert result["value"] == pytest.approx(0.3)
    assert result["confusion"]["matrix"] == [[1, 0], [0, 1]]
    assert result["info"]["problems"] == []
    assert epochs(server) == [0, 1, 2]
    first = next(body for body in server.renewals if body["reports"])
    assert set(first["reports"][0]["metrics"]) == {"macro_f1", "accuracy", "loss"}  # no NaN
    assert [b["value"] for b in server.renewals if b["value"]] == [pytest.approx(0.3)]
    assert server.claims[0]["device"]["name"] == "fake"
    assert set(server.uploads) == {"model.zip", "predictions.csv", "train.log"}
    with zipfile.ZipFile(io.BytesIO(server.uploads["model.zip"])) as archive:
        assert archive.namelist() == ["weights"]
    assert b"epoch 2" in server.uploads["train.log"]
    assert b"this line must not reach the pipe" in server.uploads["train.log"]


def test_a_model_that_is_not_the_best_is_not_uploaded(
    server: LeaseServer, start: StartWorker
) -> None:
    server.add_lease("t1")
    start(until_idle_s=0).exit_status()
    assert server.end()[1] == "result"
    assert set(server.uploads) == {"predictions.csv", "train.log"}


def test_a_pruned_trial_ends_at_the_epoch_that_pruned_it(
    server: LeaseServer, start: StartWorker
) -> None:
    server.on_renew = lambda body: (
        "prune" if any(report["epoch"] == 1 for report in body["reports"]) else "continue"
    )
    server.add_lease("t1")
    start(until_idle_s=0).exit_status()
    _, end, result = server.end()
    assert (end, result["state"], result["value"]) == ("result", "pruned", pytest.approx(0.2))
    assert epochs(server) == [0, 1]
    assert "model.zip" not in server.uploads


def test_an_evaluation_scores_the_uploaded_model(server: LeaseServer, start: StartWorker) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("weights", "{...}")
    model = {"kind": "artifact", "name": "t0", "key": "t0"}
    files = [server.remote("model.zip", archive.getvalue())]
    server.add_lease("t1", kind="evaluate", split="test", model={**model, "files": files})
    worker = start(until_idle_s=0)
    _, end, result = server.end()
    assert (end, result["value"]) == ("result", 0.5), worker.log
    assert not any(body["value"] for body in server.renewals)


def test_a_cancelled_trial_stops_and_its_trainer_takes_the_next(
    server: LeaseServer, start: StartWorker
) -> None:
    server.on_renew = lambda body: "cancel" if 0 in epochs(server) else "continue"
    server.add_lease("t1", "wait")
    worker = start()
    worker.await_line("trial t1 cancelled")
    server.on_renew = lambda body: "continue"
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")
    assert len(worker.await_line("started")) == 1


def test_a_trainer_that_does_not_stop_when_cancelled_is_killed(
    server: LeaseServer, start: StartWorker
) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    server.on_renew = lambda body: "cancel"
    worker.await_line("trial t1 cancelled")
    assert is_gone(worker.trainer_pid())
    server.on_renew = lambda body: "continue"
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")


def test_a_lost_lease_kills_the_trainer_and_nothing_more_is_said_of_it(
    server: LeaseServer, start: StartWorker
) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    server.on_renew = lambda body: 409
    worker.await_line("trial t1 lost")
    assert is_gone(worker.trainer_pid())
    server.on_renew = lambda body: "continue"
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")
    assert "t1" not in server.uploads


def test_a_trainer_that_dies_is_reported_with_its_last_words_and_replaced(
    server: LeaseServer, start: StartWorker
) -> None:
    server.add_lease("t1", "die")
    server.add_lease("t2")
    worker = start(until_idle_s=0)
    trial, end, failure = server.end()
    assert (trial, end, failure["code"], failure["retry"]) == (
        *("t1", "failure"),
        *("trainer_crashed", True),
    )
    assert "SIGKILL" in failure["detail"]
    assert "last words" in failure["detail"]
    assert server.end()[:2] == ("t2", "result")
    assert worker.exit_status() == 0
    assert len(worker.await_line("started")) == 2


def test_an_unforeseen_error_may_be_tried_again_on_a_new_trainer(
    server: LeaseServer, start: StartWorker
) -> None:
    server.add_lease("t1", "raise")
    server.add_lease("t2")
    worker = start(until_idle_s=0)
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "trainer_error", True)
    assert "something unforeseen" in failure["detail"]
    assert server.end()[:2] == ("t2", "result")
    assert worker.exit_status() == 0
    assert len(worker.await_line("started")) == 2


def test_a_fault_of_the_configuration_is_final_and_the_trainer_stays(
    server: LeaseServer, start: StartWorker
) -> None:
    server.add_lease("t1", "nan")
    server.add_lease("t2")
    worker = start(until_idle_s=0)
    _, end, failure = server.end()
    assert (end, failure) == (
        "failure",
        {"code": "nan_loss", "detail": "The loss is NaN.", "retry": False},
    )
    assert server.end()[:2] == ("t2", "result")
    assert worker.exit_status() == 0
    assert len(worker.await_line("started")) == 1


def test_a_file_that_is_not_what_the_lease_says_fails_the_attempt(
    server: LeaseServer, start: StartWorker
) -> None:
    server.add_lease("t1")
    server.files["validation"] = b"something else"
    start(until_idle_s=0)
    _, end, failure = server.end()
    assert (end, failure["code"], failure["retry"]) == ("failure", "bad_download", True)


def test_sigterm_gives_the_trial_back(server: LeaseServer, start: StartWorker) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    worker.process.send_signal(signal.SIGTERM)
    assert server.end() == ("t1", "release", {"reason": "stopping"})
    assert worker.process.wait(10) == 0
    assert is_gone(worker.trainer_pid())


def test_sigterm_ends_an_idle_worker(server: LeaseServer, start: StartWorker) -> None:
    worker = start()
    pid = worker.trainer_pid()
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(10) == 0
    assert is_gone(pid)


def test_a_second_signal_ends_the_worker_at_once(server: LeaseServer, start: StartWorker) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    server.status = 503  # so that the first signal cannot give the trial back
    worker.process.send_signal(signal.SIGTERM)
    worker.await_line("shutting down")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(5) == 128 + signal.SIGTERM
    assert is_gone(worker.trainer_pid())


def test_a_trainer_dies_with_its_agent(server: LeaseServer, start: StartWorker) -> None:
    server.add_lease("t1", "deaf")
    worker = start()
    worker.await_line("deaf from here on")
    worker.process.kill()
    assert is_gone(worker.trainer_pid())


def test_a_trial_outlives_an_absence_of_the_server(server: LeaseServer, start: StartWorker) -> None:
    calls = iter([503] * 3)
    server.on_renew = lambda body: next(calls, "continue") if body["reports"] else "continue"
    server.add_lease("t1")
    worker = start(until_idle_s=0)
    assert server.end()[1] == "result"
    assert worker.exit_status() == 0
    assert epochs(server) == [0, 0, 0, 0, 1, 2]


def test_an_orphan_is_killed_and_handed_back_when_the_server_returns(
    server: LeaseServer, start: StartWorker
) -> None:
    server.add_lease("t1", "deaf")
    worker = start(orphan_s=0.5)
    worker.await_line("deaf from here on")
    server.status = 503
    worker.await_line("trial t1 orphaned")
    assert is_gone(worker.trainer_pid())
    server.status = 0
    assert server.end() == ("t1", "release", {"reason": "orphaned"})
    server.add_lease("t2")
    assert server.end()[:2] == ("t2", "result")


def test_a_refused_key_ends_the_worker_with_the_reason(
    server: LeaseServer, start: StartWorker
) -> None:
    server.status = 401
    worker = start()
    assert worker.exit_status() == 1
    assert "refuses this worker: as told (401 told_to_fail)" in worker.log


def test_a_trainer_that_cannot_start_ends_the_worker_with_the_reason(
    server: LeaseServer, start: StartWorker
) -> None:
    worker = start(trainer="no_such_trainer")
    assert worker.exit_status() == 1
    assert "No module named no_such_trainer" in worker.log
    assert server.claims == []
