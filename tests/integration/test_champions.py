"""A schedule's champion: replaced by what is better on the paired test, and by nothing else."""

import csv
import threading
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_clock import use_fake_clock
from schedule_house import House, minutes, schedule_house
from sqlalchemy import select, update

from service.errors import ConflictError
from service.queue.artifact_upkeep import drop_unneeded_files
from service.queue.purge import delete_study
from service.schedules import champion
from service.schedules.champion import decide_champions
from service.schedules.saving import edit_schedule
from service.store.database import Database
from service.store.identifiers import new_id
from service.store.schedules import get_schedule
from service.store.tables import Artifact, Event, ScheduleRun, Study, Trial
from studies.wire.schedules import SchedulePatch

ROWS = 40


class Arena:
    """A schedule with a champion rule; each of its studies ends with answers that a test names."""

    def __init__(self, house: House, **fields: Any) -> None:
        self.house = house
        self.minute = 0
        self.write("train", 30)
        self.write("test", ROWS)
        self.schedule_id = house.schedule(
            **{
                "data": {"train": "train.csv", "test": "test.csv"},
                "study": {"name": "t-{time}", "budget": {"n_trials": 1}},
                "overlap": "allow",
                "champion": {},
                **fields,
            }
        )

    def write(self, split: str, rows: int, first: int = 1) -> None:
        """Rows ``first``, … of an endless file, whose labels alternate."""
        lines = [f"{split} text {n},{'ab'[n % 2]}" for n in range(first, first + rows)]
        path = self.house.folder / f"{split}.csv"
        path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")

    def fire(self) -> str:
        """The id of the study of the next fire."""
        self.minute += 5
        assert self.house.at(minutes(self.minute)) == 1
        study_id = self.house.rows()[-1].study_id
        assert study_id is not None
        return study_id

    def end(
        self, study_id: str, wrong: Collection[int], *, split: str = "test", rows: int = ROWS
    ) -> None:
        """Complete the study: its trial 0 answers all of ``split`` but the rows ``wrong``."""
        database = self.house.database
        with database.transaction() as session:
            trial = session.scalars(
                select(Trial).where(Trial.study_id == study_id, Trial.number == 0)
            ).one()
            trial.state, trial.value, trial.attempt = "completed", 0.5, 1
            scored = trial.id
            if split == "test":
                scored = new_id()
                evaluation = Trial(
                    id=scored, study_id=study_id, kind="evaluate", state="completed", seed=0,
                    attempt=1, evaluates_id=trial.id, told=True,
                )  # fmt: skip
                session.add(evaluation)
                session.flush()
            session.add_all([self._file(study_id, scored, "predictions.csv"),
                             self._file(study_id, trial.id, "model.zip")])  # fmt: skip
            session.execute(
                update(Study)
                .where(Study.id == study_id)
                .values(state="completed", finished_at=datetime.now(UTC))
            )
        self._write_predictions(self.path(scored, "predictions.csv"), wrong, rows)
        self.path(trial.id, "model.zip").parent.mkdir(parents=True, exist_ok=True)
        self.path(trial.id, "model.zip").write_bytes(b"m")

    def path(self, trial_id: str, name: str) -> Path:
        return self.house.server.context.folders.artifact(trial_id, 1, name)

    def _file(self, study_id: str, trial_id: str, name: str) -> Artifact:
        return Artifact(
            trial_id=trial_id, attempt=1, name=name, study_id=study_id, sha256="a" * 64, bytes=1,
            created_at=datetime.now(UTC),
        )  # fmt: skip

    def _write_predictions(self, path: Path, wrong: Collection[int], rows: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "true", "predicted", "probability"))
            for row in range(1, rows + 1):
                true = "ab"[row % 2]
                writer.writerow((row, true, "c" if row in wrong else true, "0.9"))

    def round(self, wrong: Collection[int], **how: Any) -> tuple[str, dict[str, Any]]:
        """A fire whose study ends so, and the decision; returns the study's id too."""
        study_id = self.fire()
        self.end(study_id, wrong, **how)
        return study_id, self.decide(study_id)

    def decide(self, study_id: str) -> dict[str, Any]:
        assert decide_champions(self.house.server.context) == 1
        return self.decision(study_id)

    def decision(self, study_id: str) -> dict[str, Any]:
        with self.house.database.reading() as session:
            run = session.scalars(select(ScheduleRun).where(ScheduleRun.study_id == study_id)).one()
        assert run.decision is not None
        assert run.decision["verdict"] == run.verdict
        return run.decision

    def champion(self) -> tuple[str | None, int | None]:
        with self.house.database.reading() as session:
            schedule = get_schedule(session, self.schedule_id)
            return schedule.champion_study_id, schedule.champion_number

    def edit(self, **changes: Any) -> None:
        patch = SchedulePatch.model_validate(changes)
        edit_schedule(self.house.server.context, self.schedule_id, patch)


@pytest.fixture
def house(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    use_fake_clock(monkeypatch)
    with schedule_house(database, tmp_path) as house:
        yield house


def test_only_what_is_better_on_the_paired_test_takes_the_champions_place(house: House) -> None:
    arena = Arena(house)
    first, decision = arena.round(range(1, 13))
    assert (decision["verdict"], arena.champion()) == ("first", (first, 0))
    # Right on rows 1 to 5 where the champion is wrong: p = 2 / 2^5, over the level of 0.05.
    second, decision = arena.round(range(6, 13))
    assert (decision["verdict"], decision["p_value"], arena.champion()) == (
        "kept",
        0.0625,
        (first, 0),
    )
    assert (decision["only_new_right"], decision["only_old_right"]) == (5, 0)
    # Right on 1 to 12, wrong on 40: p = 2 * (1 + 13) / 2^13.
    third, decision = arena.round([40])
    assert arena.champion() == (third, 0)
    assert decision == {
        "verdict": "promoted",
        "reason": "Better on 40 test rows: right where the champion was wrong on 12, wrong where "
        "it was right on 1 (p = 0.00342, level 0.05).",
        "split": "test",
        "rows": ROWS,
        "only_new_right": 12,
        "only_old_right": 1,
        "p_value": pytest.approx(2 * 14 / 2**13),
        "champion_study_id": first,
        "champion_number": 0,
    }
    # Much worse is just as unlikely by chance, and no reason to take it.
    _, decision = arena.round(range(1, 21))
    assert (decision["verdict"], decision["p_value"] < 0.001) == ("kept", True)
    assert (arena.champion(), second != third) == ((third, 0), True)
    with house.database.reading() as session:
        kinds = session.scalars(
            select(Event.type).where(Event.type.like("schedule.champion%")).order_by(Event.id)
        ).all()
    assert [kind.removeprefix("schedule.champion_") for kind in kinds] == [
        "first", "kept", "promoted", "kept",
    ]  # fmt: skip


def test_the_level_is_the_schedules(house: House) -> None:
    arena = Arena(house, champion={"alpha": 0.0625})
    arena.round(range(1, 6))
    second, decision = arena.round([])
    assert (decision["verdict"], arena.champion()) == ("promoted", (second, 0))


def test_when_the_test_rows_changed_only_those_that_both_held_out_are_compared(
    house: House,
) -> None:
    arena = Arena(house)
    first, _ = arena.round([31, 32, 33, 34])
    # Rows 31 to 40 of before are rows 1 to 10 now: of the four that the champion had wrong, one
    # is wrong again. The other errors are of rows that the champion never saw.
    arena.write("test", ROWS, first=31)
    _, decision = arena.round([1, *range(11, 31)])
    assert (decision["rows"], decision["only_new_right"], decision["only_old_right"]) == (10, 3, 0)
    arena.write("test", ROWS, first=1000)
    _, decision = arena.round([])
    assert decision["verdict"] == "kept"
    assert decision["reason"] == "Not comparable: the two held out no test row in common."
    assert arena.champion() == (first, 0)


def test_without_test_rows_validation_rows_are_compared(house: House) -> None:
    arena = Arena(house, data={"train": "train.csv", "validation": "test.csv"})
    arena.round(range(1, 9), split="validation")
    second, decision = arena.round([], split="validation")
    assert (decision["split"], decision["only_new_right"]) == ("validation", 8)
    assert (decision["verdict"], arena.champion()) == ("promoted", (second, 0))


def test_a_study_without_a_model_to_show_leaves_the_champion(house: House) -> None:
    arena = Arena(house)
    champion_of = arena.round([1])[0], 0
    for state, error, expected in (
        ("cancelled", None, "The study was cancelled."),
        ("failed", "No trial completed: 1 failed.", "The study has failed. No trial completed"),
        ("completed", "gpu_lost: gone", "The study has no test score: gpu_lost: gone"),
    ):
        study_id = arena.fire()
        arena.end(study_id, [])
        with house.database.transaction() as session:
            values = {"state": state, "error_detail": error, "error_code": error and "e"}
            session.execute(update(Study).where(Study.id == study_id).values(**values))
        decision = arena.decide(study_id)
        assert decision["verdict"] == "kept"
        assert decision["reason"].startswith(expected)
        assert arena.champion() == champion_of
    study_id = arena.fire()
    assert decide_champions(house.server.context) == 0  # it has not ended
    delete_study(house.server.context, study_id)
    assert arena.decide(study_id)["reason"] == "The study was deleted."


def test_predictions_that_cannot_be_read_promote_nothing(house: House) -> None:
    arena = Arena(house)
    first, _ = arena.round(range(1, 21))
    for spoil in ("gone", "row,true\n1,a\n", "nonsense", "row,predicted\nx,a\n"):
        study_id = arena.fire()
        arena.end(study_id, [])
        with house.database.reading() as session:
            scored = session.scalars(
                select(Trial.id).where(Trial.study_id == study_id, Trial.kind == "evaluate")
            ).one()
        path = arena.path(scored, "predictions.csv")
        path.unlink() if spoil == "gone" else path.write_text(spoil)
        decision = arena.decide(study_id)
        assert decision["verdict"] == "kept", spoil
        assert decision["reason"].startswith("Not comparable: "), spoil
    assert arena.champion() == (first, 0)


def test_the_champions_study_is_not_deleted_until_the_schedule_lets_it_go(house: House) -> None:
    arena = Arena(house)
    first, _ = arena.round([])
    with pytest.raises(ConflictError, match="is the champion of schedule 'nightly'") as refused:
        delete_study(house.server.context, first)
    assert refused.value.code == "is_champion"
    arena.edit(champion=None)
    assert arena.champion() == (None, None)
    delete_study(house.server.context, first)


def test_the_champions_model_stays_when_its_study_finds_a_better_one(house: House) -> None:
    arena = Arena(house)
    first, _ = arena.round([])
    with house.database.transaction() as session:
        champion_id = session.scalars(
            select(Trial.id).where(Trial.study_id == first, Trial.number == 0)
        ).one()
        better = Trial(
            id=new_id(), study_id=first, kind="train", number=1, state="completed", seed=0,
            attempt=1, value=0.9, told=True,
        )  # fmt: skip
        session.add(better)
        session.flush()
        session.add(arena._file(first, better.id, "model.zip"))
    assert drop_unneeded_files(house.server.context, first) == 0
    assert arena.path(champion_id, "model.zip").exists()
    arena.edit(champion=None)
    assert drop_unneeded_files(house.server.context, first) == 1
    assert not arena.path(champion_id, "model.zip").exists()


def test_a_rule_that_is_gone_decides_nothing_and_leaves_nothing_pending(house: House) -> None:
    arena = Arena(house)
    study_id = arena.fire()
    arena.end(study_id, [])
    arena.edit(champion=None)
    decision = arena.decide(study_id)
    assert (decision["verdict"], arena.champion()) == ("kept", (None, None))
    assert decide_champions(house.server.context) == 0


def test_servers_that_decide_at_once_decide_once(house: House) -> None:
    arena = Arena(house)
    arena.round(range(1, 9))
    second = arena.fire()
    arena.end(second, [])
    gate = threading.Barrier(4)
    decided: list[int] = []

    def decide() -> None:
        gate.wait(20)
        decided.append(decide_champions(house.server.context))

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(decided) == [0, 0, 0, 1]
    assert arena.champion() == (second, 0)


def test_a_decision_holds_only_against_the_champion_it_was_made_against(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = Arena(house)
    arena.round(range(1, 9))
    late, quick = arena.fire(), arena.fire()
    arena.end(late, [])
    original = champion.decision_on

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(champion, "decision_on", original)
        decision = original(*arguments)
        with house.database.transaction() as session:
            schedule = get_schedule(session, arena.schedule_id)
            schedule.champion_study_id, schedule.champion_number = quick, 0
        return decision

    arena.end(quick, [])
    monkeypatch.setattr(champion, "decision_on", overtaken)
    decide_champions(house.server.context)
    with pytest.raises(AssertionError):
        arena.decision(late)  # it was better than the champion before
    decide_champions(house.server.context)
    decision = arena.decision(late)
    assert (decision["verdict"], decision["champion_study_id"]) == ("kept", quick)
