"""The files of real workers: kept as the study says, cleaned when they lose, shown as they are."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from signal import Signals

import pytest
from chaos.house import House, open_house
from chaos.nursery import Nursery
from chaos.progress import attempts_of, await_end
from chaos.requests import send, steer
from chaos.settling import come_to_rest, settle
from chaos.steered_audit import audit_all
from real_parts import until
from sqlalchemy import select

from service.store.database import Database
from service.store.tables import Trial


@pytest.fixture
def house(kind: str, database: Database, processes: Nursery, tmp_path: Path) -> Iterator[House]:
    """On PostgreSQL two servers."""
    with open_house(processes, tmp_path, database, servers=2 if kind == "postgresql" else 1) as it:
        yield it


def files_of(house: House, database: Database, study_id: str) -> list[Path]:
    """What lies on the disk of the study's trials."""
    with database.reading() as session:
        trials = session.scalars(select(Trial.id).where(Trial.study_id == study_id)).all()
    folders = [house.home / "artifacts" / trial_id for trial_id in trials]
    return [path for folder in folders for path in folder.glob("*/*")]


def lies_there(
    house: House, database: Database, study_id: str, expected: Mapping[str, int]
) -> bool:
    """Whether the files of the study have these names, each so often."""
    names = Counter(path.name for path in files_of(house, database, study_id))
    return names == Counter(expected)


def shows_what_lies_there(house: House, database: Database, study_id: str) -> bool:
    """Whether people are shown the bytes that the study's files take."""
    with house.client() as client:
        shown = client.study(study_id).disk_bytes
    return shown == sum(path.stat().st_size for path in files_of(house, database, study_id))


def await_checkpoint(house: House, database: Database, study_id: str, attempt: int) -> None:
    def is_there() -> bool:
        return any(
            path.parent.name == str(attempt) and path.name.startswith("checkpoint-")
            for path in files_of(house, database, study_id)
        )

    until(is_there, lambda: str(house.logs("")))


def test_the_models_that_stay_are_those_that_keep_names_and_the_bytes_shown_are_there(
    house: House, database: Database
) -> None:
    studies = {
        keep: house.submit(
            sampler="random",
            training={"epochs": 1},
            budget={"n_trials": 4, "max_parallel": 2},
            checkpoint={"keep": keep},
        )
        for keep in ("best", "all", "none")
    }
    for _ in range(4):
        house.hire()
    await_end(house, database, *studies.values())
    for keep, models in (("best", 1), ("all", 4), ("none", 0)):
        expected = {"model.zip": models, "predictions.csv": 4, "train.log": 4}
        # The end is committed before the files that lost are removed.
        until(partial(lies_there, house, database, studies[keep], expected))
        assert shows_what_lies_there(house, database, studies[keep])
    come_to_rest(house, database, *studies.values())
    audit_all(house, database)


def test_a_frozen_worker_leaves_no_file_of_its_lost_attempt(
    house: House, database: Database
) -> None:
    study_id = house.submit(
        training={"epochs": 25},
        budget={"n_trials": 1},
        checkpoint={"upload": True, "every_epochs": 1},
    )
    frozen = house.hire(epoch_s=0.05)
    await_checkpoint(house, database, study_id, attempt=1)
    house.nursery.signal(frozen, Signals.SIGSTOP)
    house.hire(epoch_s=0.05, cache=str(house.home.parent / "elsewhere"))
    status, answer = send(house, house.ports[0], "POST", "/v1/workers/worker-0/stopped")
    assert status == 200, answer
    await_checkpoint(house, database, study_id, attempt=2)
    # Its first file replaces the last of the lost attempt, which goes after the commit.
    until(lambda: {path.parent.name for path in files_of(house, database, study_id)} == {"2"})
    house.nursery.signal(frozen, Signals.SIGCONT)
    await_end(house, database, study_id)
    until(lambda: " lost" in frozen.log.read_text(), frozen.log.read_text)

    first, second = attempts_of(database, study_id)
    assert (first.outcome, second.outcome) == ("lost", "completed")
    assert second.info is not None
    assert second.info["resumed_from_epoch"] >= 1
    expected = {"model.zip": 1, "predictions.csv": 1, "train.log": 1}
    until(lambda: lies_there(house, database, study_id, expected))
    assert shows_what_lies_there(house, database, study_id)
    settle(house, database, study_id)
    audit_all(house, database)


def test_a_cancelled_trials_checkpoints_are_removed_though_the_server_died_upon_the_cancel(
    house: House, database: Database
) -> None:
    study_id = house.submit(
        training={"epochs": 1000},
        budget={"n_trials": 1},
        checkpoint={"upload": True, "every_epochs": 1},
    )
    house.hire(epoch_s=0.05)
    await_checkpoint(house, database, study_id, attempt=1)
    steer(house, study_id, "cancel", kill=True)
    until(lambda: not files_of(house, database, study_id), lambda: str(house.logs("server")))
    assert shows_what_lies_there(house, database, study_id)
    settle(house, database, study_id)
    audit_all(house, database)
