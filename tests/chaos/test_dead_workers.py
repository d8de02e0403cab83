"""A dead worker's trial is claimable within five seconds of its lease's end, whatever others do."""

from pathlib import Path

from chaos.house import open_house
from chaos.nursery import Nursery
from chaos.takeover import attempt_of, takeover_s
from real_parts import until

from service.store.database import Database

SLACK_S = 5.0
LONG = {"epochs": 300}
"""A training of twenty seconds at least."""


def test_the_only_running_trial_of_a_dead_worker_is_taken_though_a_better_study_keeps_all_busy(
    database: Database, processes: Nursery, tmp_path: Path
) -> None:
    with open_house(processes, tmp_path, database) as house:
        one_at_a_time = {"n_trials": 3, "max_parallel": 1}
        study_id = house.submit(training=LONG, budget=one_at_a_time)
        holder = house.hire()
        until(lambda: attempt_of(database, study_id) == 1)
        # One trial after the other, each of them before the dead worker's.
        house.submit(priority=9, training={"epochs": 1}, budget={"n_trials": 500})
        for _ in range(2):
            house.hire()
        assert 0 <= takeover_s(house, database, holder, study_id) <= SLACK_S
