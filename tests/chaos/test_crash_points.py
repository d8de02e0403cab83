"""The server dies between any two steps of claim, ask, renew, result and tell, and all heals."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from chaos.audit import Findings, audit
from chaos.crash_points import POINTS
from chaos.house import House, open_house
from chaos.nursery import Nursery
from chaos.settling import settle
from real_parts import until

from service.store.database import Database
from service.store.tables import Study

WORKERS = 3
LEASE_S = 60.0
"""Longer than workers wait between two tries of a server that is away, so no lease lapses."""
COMMITS = 36
"""A trial's way from claim to told takes fewer."""


def crash_one_after_another(
    house: House, database: Database, crashes: Iterable[str], trials: int
) -> tuple[list[str], Findings]:
    """Run a study on servers each of which kills itself at the next of ``crashes``, then on one
    that does not; the crashes that came about, and what the audit found."""
    (port,) = house.ports
    study_id = house.submit(
        sampler="tpe",
        training={"epochs": 1},
        budget={"n_trials": trials, "max_parallel": WORKERS},
    )
    house.close()
    happened = []

    def is_over() -> bool:
        with database.reading() as session:
            return session.get_one(Study, study_id).finished_at is not None

    for crash in crashes:
        house.start_server(port, crash=crash)
        while len(house.workers) < WORKERS:
            house.hire()
        until(lambda: house.has_crashed(port) or is_over(), house.servers[port].log.read_text)
        if port in house.servers:
            house.kill_server(port)
            break
        happened.append(crash)
    house.open()
    until(is_over, house.servers[port].log.read_text)
    settle(house, database, study_id)
    return happened, audit(house, database, study_id)


def test_a_server_that_dies_between_two_steps_leaves_what_the_next_one_mends(
    kind: str,
    database: Database,
    processes: Nursery,
    tmp_path: Path,
    print_figures: Callable[[str], None],
) -> None:
    trials = len(POINTS)
    with open_house(processes, tmp_path, database, lease_s=LEASE_S) as house:
        happened, found = crash_one_after_another(house, database, POINTS, trials)
    assert happened == list(POINTS)
    assert found.attempts == trials  # no worker died, so no attempt was for nothing
    print_figures(
        f"crash points, {kind}: {len(happened)} points, {found.results} results of {trials} trials"
        f" in {found.attempts} attempts"
    )


@pytest.mark.timeout(900)
def test_a_server_that_dies_at_any_commit_leaves_what_the_next_one_mends(
    kind: str,
    database: Database,
    processes: Nursery,
    tmp_path: Path,
    is_long: bool,
    print_figures: Callable[[str], None],
) -> None:
    counts = range(1, COMMITS + 1) if is_long else (17,)
    crashes = [f"{when} commit {count}" for count in counts for when in ("before", "after")]
    trials = 2 * len(crashes)
    with open_house(processes, tmp_path, database, lease_s=LEASE_S) as house:
        happened, found = crash_one_after_another(house, database, crashes, trials)
    assert happened == crashes
    assert found.attempts == trials
    print_figures(
        f"commits, {kind}: died before and after {len(counts)} different commits, "
        f"{found.results} results of {trials} trials in {found.attempts} attempts"
    )
