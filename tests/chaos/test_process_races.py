"""Processes that do the same thing at the same moment: one of them does it, the others hear so."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest
from builders import make_study
from chaos.house import House, open_house
from chaos.nursery import Nursery
from sqlalchemy import select

from service.store.database import Database
from service.store.tables import Attempt, ConfusionCell, Event, Trial

LONG_LEASE_S = 600.0
"""Nobody renews here, so no lease may lapse on its own."""


@pytest.fixture
def house(kind: str, database: Database, processes: Nursery, tmp_path: Path) -> Iterator[House]:
    """One server on SQLite, two on PostgreSQL."""
    servers = 2 if kind == "postgresql" else 1
    with open_house(processes, tmp_path, database, servers=servers, lease_s=LONG_LEASE_S) as house:
        yield house


def test_many_processes_claim_every_trial_and_none_twice(
    kind: str,
    database: Database,
    house: House,
    is_long: bool,
    print_figures: Callable[[str], None],
) -> None:
    processes, trials = (16, 500) if is_long else (8, 60)
    make_study(database, n_trials=trials, max_parallel=trials, sampler="random")
    began = monotonic()
    claimed = house.race("claim_everything", processes=processes, ports=house.ports, key=house.key)
    seconds = monotonic() - began
    leases = [tuple(lease) for own in claimed for lease in own]
    assert len(leases) == trials
    assert len({trial_id for trial_id, _ in leases}) == trials
    assert {attempt for _, attempt in leases} == {1}
    assert sum(bool(own) for own in claimed) > 1  # it was a race
    print_figures(
        f"claims, {kind}: {processes} processes, {len(house.ports)} servers, {seconds:.1f} s: "
        f"{len(leases)} claims, {trials} distinct trials"
    )


def test_of_four_results_for_one_attempt_one_is_accepted(
    kind: str,
    database: Database,
    house: House,
    is_long: bool,
    print_figures: Callable[[str], None],
) -> None:
    rounds = 100 if is_long else 12
    study_id = make_study(database, n_trials=rounds, max_parallel=rounds, sampler="random")
    began = monotonic()
    answers = house.race(
        "finish_each_attempt", processes=4, rounds=rounds, ports=house.ports, key=house.key
    )
    seconds = monotonic() - began
    accepted: dict[str, float] = {}
    for answer in answers:
        (value,) = (value for status, value in answer["ends"] if status == 200)
        accepted[answer["trial"]] = value
        assert sorted(status for status, _ in answer["ends"]) == [200, 409, 409, 409]
    with database.reading() as session:
        trials = session.scalars(select(Trial).where(Trial.study_id == study_id)).all()
        outcomes = session.scalars(select(Attempt.outcome)).all()
        ends = session.scalars(select(Event.trial_id).where(Event.type == "trial.completed")).all()
        cells = session.scalars(select(ConfusionCell.trial_id)).all()
    assert {trial.id: trial.value for trial in trials} == accepted
    assert outcomes == ["completed"] * rounds
    assert len(ends) == len(set(ends)) == rounds
    assert len(cells) == 4 * rounds  # that of `builders.result_request` has four above zero
    print_figures(
        f"results, {kind}: 4 processes, {len(house.ports)} servers, {rounds} attempts, "
        f"{seconds:.1f} s: {len(accepted)} accepted, one each, {3 * rounds} refused"
    )


def test_of_eight_sweepers_of_a_lapsed_lease_one_takes_it_back_and_one_gets_it(
    kind: str,
    database: Database,
    house: House,
    is_long: bool,
    print_figures: Callable[[str], None],
) -> None:
    rounds = 50 if is_long else 6
    house.close()  # its own reconciler would be a ninth
    make_study(database, n_trials=1)
    began = monotonic()
    answers = house.race(
        "sweep_a_lapsed_lease",
        processes=8,
        rounds=rounds,
        database_url=house.database_url,
        home=str(house.home),
    )
    seconds = monotonic() - began
    for number, answer in enumerate(answers):
        assert [attempt for _, attempt in answer if attempt is not None] == [number + 1]
        if number > 0:
            assert sum(lapsed for lapsed, _ in answer) == 1
    with database.reading() as session:
        trial = session.scalars(select(Trial)).one()
        outcomes = session.scalars(select(Attempt.outcome).order_by(Attempt.attempt)).all()
    assert (trial.attempt, trial.lost) == (rounds, rounds - 1)
    assert outcomes == ["lost"] * (rounds - 1) + [None]
    print_figures(
        f"sweeps, {kind}: 8 processes, {rounds} rounds, {seconds:.1f} s: "
        f"{trial.attempt} attempts, one per round"
    )
