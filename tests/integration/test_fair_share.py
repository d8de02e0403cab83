"""Studies of equal priority share the workers; none starves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import make_study, result_request
from queue_server import QueueServer, queue_server

from service.store.database import Database


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[QueueServer]:
    with queue_server(database, tmp_path) as server:
        yield server


def work(server: QueueServer, trials: int) -> list[str]:
    """One worker that runs one trial after the other; the studies they are of."""
    served = []
    for _ in range(trials):
        lease = server.claim()
        served.append(lease.study_id)
        server.dispatcher.finish(lease.trial_id, 1, result_request())
    return served


def test_one_worker_serves_equal_studies_in_turn(server: QueueServer) -> None:
    first, second, third = (
        make_study(server.database, n_trials=3, age_s=age_s) for age_s in (90, 60, 30)
    )
    assert work(server, 9) == [first, second, third] * 3


def test_a_study_that_comes_later_has_its_turn_next(server: QueueServer) -> None:
    old = make_study(server.database, n_trials=9, age_s=60)
    work(server, 3)
    new = make_study(server.database, n_trials=2)
    assert work(server, 5) == [new, old, new, old, old]


def test_the_study_with_fewer_running_trials_goes_before_the_one_served_longest_ago(
    server: QueueServer,
) -> None:
    busy = make_study(server.database, n_trials=9, age_s=60)
    for slot in range(3):
        server.claim("holder", slot)
    idle = make_study(server.database, n_trials=9)
    assert [server.claim("worker", slot).study_id for slot in range(4)] == [idle] * 3 + [busy]


def test_a_higher_priority_is_served_first_and_alone(server: QueueServer) -> None:
    low = make_study(server.database, n_trials=2, age_s=60)
    high = make_study(server.database, n_trials=2, priority=5)
    assert work(server, 4) == [high, high, low, low]


def test_a_study_that_was_paused_has_its_turn_when_it_is_resumed(server: QueueServer) -> None:
    one = make_study(server.database, n_trials=5, age_s=60)
    two = make_study(server.database, n_trials=5, age_s=30)
    assert work(server, 2) == [one, two]
    server.pause(one)
    assert work(server, 2) == [two, two]
    server.resume(one)
    assert work(server, 2) == [one, two]
