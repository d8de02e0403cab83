"""What becomes of due fires: submitted or skipped, each once, with its reason."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from api_server import TICKETS
from builders import make_dataset
from fake_clock import use_fake_clock
from real_parts import until
from schedule_house import START, House, minutes, schedule_house
from sqlalchemy import select, update

from model import data
from service.intake import sources
from service.schedules import reading
from service.schedules.fire_times import next_fire
from service.schedules.run_now import run_now
from service.schedules.scheduler import Scheduler
from service.schedules.tick import tick
from service.store.database import Database
from service.store.schedules import get_schedule, remove_schedule, replace_spec
from service.store.tables import Dataset, Event, StudyLabel, Trial
from studies.wire.schedules import ScheduleSpec


@pytest.fixture
def house(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    use_fake_clock(monkeypatch)
    with schedule_house(database, tmp_path) as house:
        yield house


def test_a_fire_submits_one_study_and_moves_the_schedule_on(house: House) -> None:
    dataset = make_dataset(house.database)
    study = {
        "name": "tickets-{date}-{time}",
        "dataset": dataset,
        "labels": {"day": "{yesterday}"},
        "budget": {"n_trials": 3},
    }
    schedule_id = house.schedule(study=study)
    assert house.at(minutes(4)) == 0
    assert house.at(minutes(5)) == 1
    assert house.at(minutes(6)) == 0
    [made] = house.studies()
    assert (made.name, made.state, made.dataset_id) == (
        "tickets-2026-03-02-1205",
        "queued",
        dataset,
    )
    [run] = house.rows()
    assert (run.outcome, run.trigger, run.study_id) == ("submitted", "schedule", made.id)
    assert (run.fire_time, run.dataset_id, run.reason) == (minutes(5), dataset, None)
    with house.database.reading() as session:
        labels = {label.key: label.value for label in session.scalars(select(StudyLabel))}
        assert len(session.scalars(select(Trial)).all()) == 3
        assert get_schedule(session, schedule_id).next_fire_at == minutes(10).timestamp()
        event = session.scalars(select(Event).where(Event.type == "schedule.submitted")).one()
    assert labels == {"schedule": "nightly", "day": "2026-03-01"}
    assert (event.study_id, event.data["schedule"]) == (made.id, "nightly")


def test_after_six_hours_down_one_fire_is_caught_up_and_all_72_are_accounted_for(
    house: House,
) -> None:
    house.schedule(grace_s=300)
    assert house.at(minutes(360)) == 72
    runs = house.runs()
    assert [time for time, _ in runs] == [f"{minutes(5 * n):%H:%M}" for n in range(1, 73)]
    assert [reason for _, reason in runs] == ["missed"] * 71 + [None]
    assert len(house.studies()) == 1
    assert house.at(minutes(364)) == 0


@pytest.mark.parametrize(
    ("fields", "late_s", "reason"),
    [
        ({"grace_s": 300}, 300, None),
        ({"grace_s": 300}, 301, "missed"),
        ({"grace_s": 0}, 60, None),  # no server looks at every instant
        ({"grace_s": 0}, 61, "missed"),
        ({"grace_s": 300, "catch_up": "none"}, 60, None),
        ({"grace_s": 300, "catch_up": "none"}, 61, "missed"),
    ],
)
def test_a_late_fire_is_made_good_within_its_grace_time(
    house: House, fields: dict[str, Any], late_s: float, reason: str | None
) -> None:
    house.schedule(cron="30 12 * * *", **fields)
    assert house.at(minutes(30) + timedelta(seconds=late_s)) == 1
    [run] = house.rows()
    assert run.reason == reason
    assert len(house.studies()) == (reason is None)


def test_a_schedule_that_slept_for_years_has_a_row_per_late_fire_and_one_for_the_rest(
    house: House,
) -> None:
    house.schedule(cron="0 * * * *")
    assert house.at(START + timedelta(hours=20_000)) == 1002
    rows = house.rows()
    assert sum(run.fires for run in rows) == 20_000
    assert (rows[0].fires, rows[0].fire_time) == (18_999, START + timedelta(hours=1))
    assert rows[1].fire_time == START + timedelta(hours=19_000)
    assert rows[-1].outcome == "submitted"


@pytest.mark.parametrize("open_studies", [0, 1, 2])
@pytest.mark.parametrize("overlap", ["forbid", "allow", "replace"])
def test_overlap_decides_what_happens_while_studies_are_open(
    house: House, overlap: str, open_studies: int
) -> None:
    schedule_id = house.schedule(overlap="allow")
    for number in range(open_studies):
        house.at(minutes(5 * (number + 1)))
    with house.database.transaction() as session:
        schedule = get_schedule(session, schedule_id)
        spec = ScheduleSpec.model_validate({**schedule.spec, "overlap": overlap})
        replace_spec(session, schedule, spec, minutes(15))
    house.at(minutes(15))
    states = [study.state for study in house.studies()]
    reason = house.runs()[-1][1]
    if overlap == "forbid" and open_studies:
        assert (states, reason) == (["queued"] * open_studies, "overlap")
        detail = house.rows()[-1].detail
        assert detail is not None
        assert house.studies()[0].id in detail
    elif overlap == "replace":
        assert (states, reason) == (["cancelled"] * open_studies + ["queued"], None)
    else:
        assert (states, reason) == (["queued"] * (open_studies + 1), None)


def test_a_fire_after_the_open_study_ended_is_submitted(house: House) -> None:
    house.schedule()
    house.at(minutes(5))
    house.at(minutes(10))
    house.end_studies()
    house.at(minutes(15))
    assert house.runs() == [("12:05", None), ("12:10", "overlap"), ("12:15", None)]


def test_data_are_read_anew_at_each_fire_and_unchanged_ones_skipped_if_asked(house: House) -> None:
    house.schedule(
        data={"train": "{yesterday}.csv"},
        study={"name": "t-{time}", "budget": {"n_trials": 1}},
        skip_unchanged=True,
        overlap="allow",
    )
    path = house.folder / "2026-03-01.csv"
    path.write_text(TICKETS)
    house.at(minutes(5))
    house.at(minutes(10))
    path.write_text(TICKETS + "please refund this,money\n")
    house.at(minutes(15))
    assert house.runs() == [("12:05", None), ("12:10", "unchanged"), ("12:15", None)]
    first, second, third = house.rows()
    assert first.dataset_id == second.dataset_id != third.dataset_id
    assert [study.dataset_id for study in house.studies()] == [first.dataset_id, third.dataset_id]


def test_what_cannot_be_submitted_is_skipped_with_its_reason_and_the_next_fire_goes_on(
    house: House,
) -> None:
    house.schedule(data={"train": "{date}.csv"}, study={"model": "local:gone"})
    path = house.folder / "2026-03-02.csv"
    house.at(minutes(5))
    path.write_text("text,label\n")
    house.at(minutes(10))
    path.write_text(TICKETS)
    house.at(minutes(15))
    missing, empty, unknown = house.rows()
    assert (missing.reason, missing.detail) == (
        "data_unreadable",
        "no_file: There is no file 2026-03-02.csv on the server. (train)",
    )
    assert (empty.reason, str(empty.detail)[:8]) == ("data_unreadable", "no_rows:")
    assert (unknown.reason, unknown.dataset_id is None) == ("invalid_study", False)
    assert "local:gone" in str(unknown.detail)
    assert house.studies() == []


def test_a_file_that_is_written_while_it_is_read_is_no_data_set(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.schedule(data={"train": "t.csv"}, study={})
    path = house.folder / "t.csv"
    path.write_text(TICKETS)

    def normalise(*arguments: Any) -> Any:
        summary = data.normalise(*arguments)
        path.write_text(TICKETS + "please refund this,money\n")
        return summary

    monkeypatch.setattr("service.intake.ingest.normalise", normalise)
    house.at(minutes(5))
    [run] = house.rows()
    assert run.reason == "data_unreadable"
    assert str(run.detail).startswith("file_changed:")
    assert house.server.counts(Dataset) == 0
    assert list(house.server.context.folders.incoming.iterdir()) == []


def test_a_run_now_obeys_overlap_and_leaves_the_schedules_own_times(house: House) -> None:
    schedule_id = house.schedule(enabled=False)
    house.pass_to(minutes(2))
    run_now(house.server.context, schedule_id)
    house.pass_to(minutes(3))
    run_now(house.server.context, schedule_id)
    house.at(minutes(5))
    assert [(run.trigger, run.reason) for run in house.rows()] == [
        ("manual", None),
        ("manual", "overlap"),
        ("schedule", "overlap"),
    ]


def test_a_removed_schedule_fires_no_more_and_its_name_is_free(house: House) -> None:
    schedule_id = house.schedule()
    with house.database.transaction() as session:
        remove_schedule(get_schedule(session, schedule_id))
    assert house.at(minutes(60)) == 0
    house.schedule()


def test_a_clock_that_is_put_back_makes_no_fire_twice(house: House) -> None:
    schedule_id = house.schedule(overlap="allow")
    house.at(minutes(5))
    house.at(minutes(10))
    house.pass_to(minutes(1))
    with house.database.transaction() as session:
        schedule = get_schedule(session, schedule_id)
        spec = ScheduleSpec.model_validate(schedule.spec)
        replace_spec(session, schedule, spec, next_fire(spec, house.now))
    for minute in (5, 10, 15):
        house.at(minutes(minute))
    assert house.runs() == [("12:05", None), ("12:10", None), ("12:15", None)]
    assert len(house.studies()) == 3


def test_servers_that_see_one_fire_submit_it_once(house: House, tmp_path: Path) -> None:
    house.schedule(overlap="allow", data={"train": "t.csv"}, study={})
    (house.folder / "t.csv").write_text(TICKETS)
    house.pass_to(minutes(5))
    gate = threading.Barrier(4)
    written: list[int] = []

    def serve() -> None:
        gate.wait(10)
        written.append(tick(house.server.context))

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(written) == [0, 0, 0, 1]
    assert (house.runs(), len(house.studies())) == ([("12:05", None)], 1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something happen whenever a file begins to be read."""

    def happening(what: Callable[[], None]) -> None:
        original = sources.allowed_files

        def allowed_files(*arguments: Any) -> Any:
            what()
            return original(*arguments)

        monkeypatch.setattr(sources, "allowed_files", allowed_files)

    return happening


def test_one_server_reads_a_fires_data_and_another_takes_over_when_it_dies(
    house: House, reads: Callable[[Callable[[], None]], None]
) -> None:
    house.schedule(data={"train": "t.csv"}, study={}, grace_s=0)
    (house.folder / "t.csv").write_text(TICKETS)
    seen: list[str] = []

    def die() -> None:
        seen.append("read")
        if len(seen) == 1:
            assert tick(house.server.context) == 0  # another server leaves it alone
            raise KeyboardInterrupt

    reads(die)
    with pytest.raises(KeyboardInterrupt):
        house.at(minutes(5))
    assert house.at(minutes(5) + timedelta(seconds=reading.CLAIM_S - 1)) == 0
    assert seen == ["read"]
    # Later than its grace time, but its reading began in time.
    assert house.at(minutes(5) + timedelta(seconds=reading.CLAIM_S + 5)) == 1
    assert house.runs() == [("12:05", None)]


def test_data_that_take_long_to_read_hold_up_no_other_schedule(
    house: House, reads: Callable[[Callable[[], None]], None]
) -> None:
    house.schedule(name="slow", data={"train": "t.csv"}, study={})
    house.schedule(name="quick")
    (house.folder / "t.csv").write_text(TICKETS)
    reading_began, may_go_on = threading.Event(), threading.Event()

    def dawdle() -> None:
        reading_began.set()
        assert may_go_on.wait(60)

    reads(dawdle)
    house.pass_to(minutes(5))
    house.server.context.settings.schedule_s = 0.01
    scheduler = Scheduler(house.server.context)
    scheduler.start()
    try:
        assert reading_began.wait(60)
        until(lambda: len(house.rows()) == 1)
        [study] = house.studies()
        assert study.name.startswith("quick-")
        may_go_on.set()
        until(lambda: len(house.rows()) == 2)
    finally:
        may_go_on.set()
        scheduler.stop()


def test_a_schedule_that_is_edited_while_its_data_are_read_is_looked_at_anew(
    house: House, reads: Callable[[Callable[[], None]], None]
) -> None:
    schedule_id = house.schedule(data={"train": "t.csv"}, study={"name": "old"})
    (house.folder / "t.csv").write_text(TICKETS)
    edits = iter([True])

    def edit() -> None:
        if next(edits, False):
            with house.database.transaction() as session:
                schedule = get_schedule(session, schedule_id, lock=True)
                spec = {**schedule.spec, "study": {"name": "new"}}
                replace_spec(session, schedule, ScheduleSpec.model_validate(spec), minutes(5))

    reads(edit)
    assert house.at(minutes(5)) == 0
    assert house.at(minutes(5)) == 1
    assert [study.name for study in house.studies()] == ["new"]


def test_warm_start_tries_the_best_of_the_last_study_first(house: House) -> None:
    space: dict[str, Any] = {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3, "log": True},
        "batch_size": {"type": "categorical", "choices": [16, 32]},
    }
    dataset = make_dataset(house.database)
    study = {"dataset": dataset, "search_space": space, "budget": {"n_trials": 4}}
    schedule_id = house.schedule(
        study=study, overlap="allow", warm_start={"source": "previous", "k": 2}
    )
    house.at(minutes(5))
    [first] = house.studies()
    tried = [(5e-4, 16, 0.8), (2e-4, 32, 0.9), (9e-4, 32, 0.7)]
    with house.database.transaction() as session:
        for number, (rate, size, value) in enumerate(tried):
            session.execute(
                update(Trial)
                .where(Trial.study_id == first.id, Trial.number == number)
                .values(
                    state="completed",
                    value=value,
                    params={"learning_rate": rate, "batch_size": size},
                )
            )
        schedule = get_schedule(session, schedule_id)
        narrower = {**space, "learning_rate": {**space["learning_rate"], "low": 4e-4}}
        spec = {**schedule.spec, "study": {**study, "search_space": narrower}}
        replace_spec(session, schedule, ScheduleSpec.model_validate(spec), minutes(10))
    house.at(minutes(10))
    second = house.studies()[-1]
    assert second.spec["enqueue"] == [{"learning_rate": 5e-4, "batch_size": 16}]
    detail = house.rows()[-1].detail
    assert detail is not None
    assert "0.0002" in detail
    assert "is not tried again" in detail
