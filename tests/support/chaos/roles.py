"""What a child of the zygote may be: a server, a worker, the runner of a race, or a scheduler."""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fake_clock import FakeClock
from queue_server import queue_server

from chaos.crash_points import arm
from chaos.quick_trainer import EPOCH_S
from chaos.races import run_race
from chaos.wrong_clock import set_clock_wrong
from service.local.database_claim import claim_database
from service.local.hosting import HostedServer
from service.local.listening import bind
from service.schedules.tick import tick
from service.settings import Settings
from service.store import clock
from service.store.database import Database
from service.worker.agent import run_worker

LOOK_S = 0.005
_SETTINGS: Mapping[str, Any] = {
    "renew_s": 0.5,
    "reconcile_s": 1.0,
    "max_lost": 1_000_000,
}


def serve(
    home: str,
    database_url: str,
    port: int,
    lease_s: float,
    crash: str | None = None,
    clock_error_s: float = 0.0,
) -> int:
    """A server on ``port``. With ``crash`` it kills itself at that point."""
    set_clock_wrong(clock_error_s)
    settings = Settings(
        home=Path(home), database_url=database_url, port=port, lease_s=lease_s, **_SETTINGS
    )
    if crash is not None:
        arm(crash)
    HostedServer(settings, bind("127.0.0.1", port), claim_database(database_url)).host()
    return 0


def work(
    server: str,
    key: str,
    cache: str,
    name: str,
    clock_error_s: float = 0.0,
    epoch_s: float | None = None,
) -> int:
    """A worker with one slot and a trainer that only pretends; with ``epoch_s`` each of its epochs
    takes so long, else as long as its configuration says."""
    set_clock_wrong(clock_error_s)
    if epoch_s is not None:
        os.environ[EPOCH_S] = str(epoch_s)
    return run_worker(
        server=server,
        key=key,
        cache=Path(cache),
        name=name,
        device="cpu",
        threads=1,
        trainer_module="chaos.quick_trainer",
        settings=Settings(**_SETTINGS),
    )


def race(name: str, answers: str, **options: Any) -> int:
    """A race between processes of its own."""
    return run_race(name, Path(answers), options)


def look_for_fires(home: str, database_url: str, data: str) -> NoReturn:
    """What a server's scheduler does, all the time, by the fake clock in the database."""
    clock.clock_of = FakeClock.read
    between_looks = threading.Event()
    database = Database(database_url)
    with queue_server(database, Path(home), data_dirs=(Path(data),)) as server:
        while True:
            tick(server.context)
            between_looks.wait(LOOK_S)


ROLES: Mapping[str, Callable[..., int]] = {
    "server": serve,
    "worker": work,
    "race": race,
    "scheduler": look_for_fires,
}
