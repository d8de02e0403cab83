"""Workers hear the signals that end them, in whatever state these find them."""

from pathlib import Path
from signal import Signals

from chaos.house import open_house
from chaos.nursery import Nursery
from real_parts import until

from service.store.database import Database

WORKERS = 10


def test_workers_that_are_told_to_end_just_as_they_go_on_after_a_stop_do_end(
    processes: Nursery, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'bertune.db'}")
    with open_house(processes, tmp_path, database) as house:
        workers = [house.hire() for _ in range(WORKERS)]
        until(lambda: all("trainer" in worker.log.read_text() for worker in workers))
        for worker in workers:
            processes.signal(worker, Signals.SIGSTOP)
        for worker in workers:
            processes.signal(worker, Signals.SIGCONT)
            processes.signal(worker, Signals.SIGTERM)
        house.await_workers()
    database.dispose()
