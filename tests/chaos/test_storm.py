"""Workers and servers are killed and stopped at random, and every trial ends exactly once."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos.audit import audit
from chaos.house import House, open_house
from chaos.nursery import Nursery
from chaos.settling import settle
from chaos.storm import Storm, Weather
from real_parts import until

from service.store.database import Database
from service.store.tables import Study


@pytest.mark.timeout(900)
def test_a_storm_of_kills_and_stops_loses_no_trial_and_records_none_twice(
    kind: str,
    database: Database,
    processes: Nursery,
    tmp_path: Path,
    is_long: bool,
    seed: int,
    print_figures: Callable[[str], None],
) -> None:
    trials = 200 if is_long else 16
    weather = Weather(
        seed=seed,
        workers=8 if is_long else 4,
        worker_every_s=0.4 if is_long else 0.8,  # so each is hit every 3.2 s
        server_every_s=5 if is_long else 2,
        strikes_s=math.inf if is_long else 5,
        limit_s=600 if is_long else 90,
    )
    servers = 2 if kind == "postgresql" else 1
    with open_house(processes, tmp_path, database, servers=servers) as house:
        study_id = house.submit(
            sampler="tpe",
            training={"epochs": 3 if is_long else 2},
            budget={"n_trials": trials, "max_parallel": trials},
            seed=seed,
        )
        damage = Storm(house, weather).rage(lambda: has_ended(database, study_id))
        settle(house, database, study_id)
        found = audit(house, database, study_id)
    assert damage.kills > 0
    assert damage.server_kills > 0
    assert found.attempts <= trials + damage.faults
    until(lambda: not trainers_left(house))
    check_logs(house)
    print_figures(
        f"storm, {kind}, seed {seed}: {weather.workers} workers, {servers} servers, "
        f"{damage.seconds:.0f} s, {damage.kills} kills and {damage.stops} stops of workers, "
        f"{damage.server_kills} kills of servers: {found.results} results of {trials} trials, "
        f"0 lost, 0 recorded twice, {found.attempts} attempts, {found.lost_leases} leases lost"
    )


def has_ended(database: Database, study_id: str) -> bool:
    with database.reading() as session:
        return session.get_one(Study, study_id).finished_at is not None


def trainers_left(house: House) -> list[int]:
    """Trainers that outlived their agents."""
    logs = house.logs("worker").values()
    pids = {int(pid) for log in logs for pid in re.findall(r"trainer (\d+) started", log)}
    return [pid for pid in pids if "quick_trainer" in command_of(pid)]


def command_of(pid: int) -> str:
    """The command line of a process; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def check_logs(house: House) -> None:
    """Nothing that was done to the processes is an error that somebody should have foreseen."""
    for name, log in house.logs("").items():
        assert "Traceback" not in log, f"{name}:\n{log}"
