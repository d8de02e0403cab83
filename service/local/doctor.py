"""What `bertune doctor` looks at: everything that a first study needs, each with what to do."""

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from service.disk_space import free_bytes
from service.local.database_claim import sqlite_file
from service.settings import Settings
from service.store.database import Database
from service.store.file_system import network_file_system
from service.store.schema import current_revision, head_revision
from studies.api import Api
from studies.connection import ApiError, ClientError, UnreachableError, find_key

MIN_PYTHON = (3, 11)
LOW_DISK_BYTES = 5_000_000_000
AT_WORK = ("idle", "busy", "draining")
TORCH_TIMEOUT_S = 120
TORCH_PROBE = """
import json, torch, transformers
gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
print(json.dumps({
    "torch": torch.__version__,
    "transformers": transformers.__version__,
    "gpus": [torch.cuda.get_device_name(index) for index in gpus],
}))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome; ``advice`` says what to do unless all is well."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    detail: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check, one after the other; a broken one does not hide the next."""
    yield _python()
    yield from _training()
    yield _disk(settings)
    yield _database(settings)
    yield from _service(settings)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        return Finding("fail", "python", version, "Install Python 3.11 or newer.")
    return Finding("ok", "python", version)


def _training() -> Iterator[Finding]:
    """torch and GPU, in a child process: a broken CUDA installation can take its process with
    it."""
    advice = "Workers on this machine need it: pip install 'bertune[train]'."
    if find_spec("torch") is None or find_spec("transformers") is None:
        yield Finding("warn", "torch", "torch or transformers is not installed", advice)
        return
    probe = [sys.executable, "-P", "-c", TORCH_PROBE]
    try:
        child = subprocess.run(
            probe, capture_output=True, text=True, timeout=TORCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield Finding("fail", "torch", f"no answer in {TORCH_TIMEOUT_S} s", advice)
        return
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or [f"status {child.returncode}"])[-1]
        yield Finding("fail", "torch", reason, "Install it anew. " + advice)
        return
    found = json.loads(child.stdout.strip().splitlines()[-1])
    yield Finding("ok", "torch", f"torch {found['torch']}, transformers {found['transformers']}")
    yield _gpu(found["gpus"])


def _gpu(names: list[str]) -> Finding:
    if not names:
        slow = "Small models train on the processor; BERT-base wants a GPU, its driver and a torch "
        return Finding("warn", "gpu", "none that torch can use", slow + "built for it.")
    return Finding("ok", "gpu", ", ".join(names))


def _disk(settings: Settings) -> Finding:
    home = settings.home.resolve()
    free = free_bytes(home)
    artifacts, datasets = (_size_bytes(home / name) for name in ("artifacts", "datasets"))
    detail = (
        f"{free / 1e9:.1f} GB free at {home}; "
        f"{artifacts / 1e9:.1f} GB of artifacts, {datasets / 1e9:.1f} GB of data sets"
    )
    if free < settings.min_free_bytes:
        advice = "Uploads are refused (BERTUNE_MIN_FREE_BYTES). Make room, or delete studies."
        return Finding("fail", "disk", detail, advice)
    if free < LOW_DISK_BYTES:
        return Finding("warn", "disk", detail, "Make room, or set BERTUNE_HOME to another disk.")
    return Finding("ok", "disk", detail)


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # removed by the server meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def _database(settings: Settings) -> Finding:
    shown = f"{settings.resolved_database_url.partition(':')[0]} database"
    file = sqlite_file(settings.resolved_database_url)
    network = network_file_system(file) if file is not None else None
    if network is not None:
        advice = "Choose a BERTUNE_HOME on a disk of this machine, or a PostgreSQL database."
        return Finding("fail", shown, f"{file} is on a network file system ({network})", advice)
    if settings.database_url is None and not (settings.home / "bertune.db").exists():
        return Finding("warn", shown, "not made yet", "The first 'bertune up' makes it.")
    try:
        database = Database(settings.resolved_database_url)
        revision = current_revision(database)
        database.dispose()
    except (SQLAlchemyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        return Finding("fail", shown, reason, "Check BERTUNE_DATABASE_URL and that it runs.")
    if revision != head_revision():
        detail = f"schema {revision or 'missing'}, this version needs {head_revision()}"
        advice = "Run 'bertune db upgrade'; if it refuses, a newer Bertune made the database."
        return Finding("warn", shown, detail, advice)
    return Finding("ok", shown, f"schema {revision}")


def _service(settings: Settings) -> Iterator[Finding]:
    """The server, first without a key, then what it says to this user's key."""
    answered = _server(settings)
    yield answered
    if find_key() is None:
        advice = "Set BERTUNE_KEY, or BERTUNE_HOME to the folder with the server's admin.key."
        yield Finding("warn", "key", "none found", advice)
    elif answered.level != "ok":
        yield Finding("ok", "key", "found; there is no server to try it on")
    else:
        yield from _key_and_workers(settings)


def _server(settings: Settings) -> Finding:
    try:
        with Api(settings.server) as client:
            client.ready()
    except UnreachableError:
        advice = "Start it with 'bertune up', or set BERTUNE_SERVER to where it runs."
        return Finding("warn", "server", f"none answers at {settings.server}", advice)
    except ApiError as error:
        advice = "Set BERTUNE_SERVER to where Bertune runs; if that is so, read its log."
        return Finding("fail", "server", str(error), advice)
    return Finding("ok", "server", f"answers at {settings.server}")


def _key_and_workers(settings: Settings) -> Iterator[Finding]:
    try:
        with Api(settings.server) as client:
            workers = client.workers()
    except ClientError as error:
        refused = isinstance(error, ApiError) and error.status == 401
        make = "Set BERTUNE_KEY to one that 'bertune keys create' made on the server's machine."
        advice = make if refused else "Read the server's log."
        yield Finding("fail", "key", str(error), advice)
        return
    yield Finding("ok", "key", "accepted")
    active = [worker for worker in workers if worker.state in AT_WORK]
    if not active:
        yield Finding("warn", "workers", "none is there", "Start one: 'bertune worker'.")
    else:
        yield Finding("ok", "workers", f"{len(active)} at work or waiting")
