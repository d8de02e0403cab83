"""A schedule by the real clock: it fires within the minute, and a real worker trains its study."""

from pathlib import Path

from real_parts import serving, tickets, until, working

from studies.api import Api

FIRE_S = 90
"""A minute until the fire, and what a busy machine needs."""


def test_a_schedule_submits_a_study_that_a_worker_trains_to_a_confusion_matrix(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    tickets(data)
    tickets(data / "held-out", first_text="well", rows=30)
    with (
        serving(tmp_path / "home", tmp_path / "models", data=data) as (url, key),
        working(url, key, tmp_path) as worker,
        Api(url, key) as client,
    ):
        schedule = client.add_schedule(
            {
                "name": "every-minute",
                "cron": "* * * * *",
                "data": {"train": "tickets.csv", "test": "held-out/tickets.csv"},
                "study": {
                    "name": "t-{datetime}",
                    "search_space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3}},
                    "training": {"epochs": 1, "max_length": 16},
                    "budget": {"n_trials": 1},
                },
                "champion": {"alpha": 0.05},
            }
        )
        runs = until(lambda: client.schedule_runs(schedule.id), within_s=FIRE_S)
        client.change_schedule(schedule.id, enabled=False)
        [run] = runs
        assert (run.outcome, run.fire_time) == ("submitted", schedule.next_fire_time)
        study_id = run.study_id
        done = until(lambda: (s := client.study(study_id)).finished_at and s, lambda: worker.log)
        assert (done.state, done.labels) == ("completed", {"schedule": "every-minute"})
        assert done.name == f"t-{run.fire_time:%Y-%m-%dT%H%M}"
        matrix = client.confusion(study_id, 0)
        # 15 % of the 87 rows that stand neither in test nor twice are held out for validation.
        assert sum(map(sum, matrix.matrix)) == 13
        assert sum(map(sum, client.confusion(study_id, 0, "test").matrix)) == 31

        def decided() -> bool:
            champion = client.schedule_runs(schedule.id)[0].champion
            return champion is not None and champion.verdict == "first"

        until(decided)
        champion = client.schedule("every-minute").champion
        assert champion is not None
        assert (champion.study_id, champion.number) == (study_id, 0)
