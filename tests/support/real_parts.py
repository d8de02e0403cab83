"""Real servers and workers as processes, and small data for them."""

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from studies.api import Api
from studies.spec import StudySpec

START_S = 60
WAIT_S = 100
SUPPORT = Path(__file__).parent
SEARCHED = os.pathsep.join((str(SUPPORT), str(SUPPORT.parents[1])))
"""Where a worker's processes find the fake trainers, and this checkout rather than another."""
TRAINER = re.compile(r"slot (\d+): trainer (\d+) started")
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


@contextmanager
def serving(
    home: Path, models: Path, database: URL | None = None, *, data: Path | None = None
) -> Iterator[tuple[str, str]]:
    """``(url, admin key)`` of a server on ``home``, whose leases last 5 s without renewal and whose
    local models lie in ``models``; its database is SQLite in its home where none is given, and
    its schedules may read what lies in ``data``. It must end cleanly and without a traceback in
    its log."""
    own = {
        "BERTUNE_DATA_DIRS": "" if data is None else str(data),
        "BERTUNE_SCHEDULE_S": "0.5",
        "BERTUNE_LEASE_S": "5",
        "BERTUNE_RENEW_S": "0.5",
        "BERTUNE_RECONCILE_S": "1",
        "BERTUNE_MODEL_DIRS": str(models),
    }
    if database is not None:
        own["BERTUNE_DATABASE_URL"] = database.render_as_string(hide_password=False)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTUNE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--home", str(home), "--port", "0"],
        env={**kept, **own},
        stderr=subprocess.PIPE,
        text=True,
    )
    log = _Log(process)
    try:
        log.wait_for("Application startup complete")
        found = ADDRESS.search(log.text)
        assert found, log.text
        yield found.group(), (home / "admin.key").read_text(encoding="ascii").strip()
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            log.close()
    assert process.returncode == 0, log.text
    assert "Traceback" not in log.text, log.text


class Worker:
    """A `bertune worker` process whose log goes to a file."""

    def __init__(
        self,
        url: str,
        key: str,
        folder: Path,
        name: str,
        trainer: str | None = None,
        *,
        slots: int = 1,
    ) -> None:
        self._log = folder / f"{name}.log"
        command = [sys.executable, "-m", "service.cli", "worker", "--name", name]
        command += ["--slots", str(slots), "--cache", str(folder / "cache")]
        command += ["--threads", "2", "--device", "cpu"]
        if trainer is not None:
            command += ["--trainer", trainer]
        own = {"BERTUNE_SERVER": url, "BERTUNE_KEY": key, "PYTHONPATH": SEARCHED}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **own}, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def trainer_pids(self, slot: int | None = None) -> list[int]:
        """The trainers of all slots, or of one, in the order in which they were started."""
        found = TRAINER.findall(self.log)
        return [int(pid) for of_slot, pid in found if slot is None or int(of_slot) == slot]

    def slot_that_says(self, text: str) -> int:
        """The slot whose trainer has said ``text``; asked for until one has."""
        said = re.compile(rf"slot (\d+) trainer: {re.escape(text)}")
        return int(until(lambda: said.search(self.log), lambda: self.log)[1])

    def end(self) -> None:
        """Kill it, and with it its trainers; nothing happens when it has ended."""
        self.process.kill()
        self.process.wait(20)


StartWorker = Callable[..., Worker]
"""The fixture `start` of the acceptance tests."""


@contextmanager
def working(url: str, key: str, folder: Path) -> Iterator[Worker]:
    """A worker of the server at ``url``, killed at the end."""
    worker = Worker(url, key, folder, "w1")
    try:
        yield worker
    finally:
        worker.end()


def is_dead(pid: int) -> bool:
    """Whether the process is gone; one that nobody has reaped yet is."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def until(
    what: Callable[[], Any], log: Callable[[], str] = str, *, within_s: float = WAIT_S
) -> Any:
    """The first true answer of ``what``, asked again and again for a bounded time."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline, log()
        threading.Event().wait(0.05)
    return found


def tickets(folder: Path, first_text: str = "fine", rows: int = 120) -> Path:
    """A small data set that a classifier can learn: the label follows from one word."""
    draw = random.Random(1)
    words = {"refund": "money back", "login": "password", "bill": "invoice"}
    lines = ["text,label", f"{first_text},bill"]
    for _ in range(rows):
        label = draw.choice(sorted(words))
        lines.append(f"please help with {words[label]} case {draw.randrange(1000)},{label}")
    folder.mkdir(exist_ok=True)
    path = folder / "tickets.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def submit(client: Api, data: Path, **changes: Any) -> str:
    """Submit a study of one trial and return its id; ``changes`` replace fields of the spec."""
    dataset = client.upload_dataset(data, **changes.pop("files", {}))
    spec: dict[str, Any] = {
        "name": "tickets",
        "dataset": dataset.id,
        "search_space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3}},
        "training": {"epochs": 3, "max_length": 16},
        "budget": {"n_trials": 1},
        **changes,
    }
    return client.submit(StudySpec.model_validate(spec)).id


class _Log:
    """A process's standard error, read by a thread."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: list[str] = []
        self._came = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str) -> None:
        with self._came:
            assert self._came.wait_for(lambda: text in self.text, START_S), self.text

    def close(self) -> None:
        self._thread.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._came:
                self._lines.append(line)
                self._came.notify_all()
