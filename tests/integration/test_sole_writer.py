"""What the sole writer's storage remembers is what its database holds, whatever was done."""

import random
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, event

from studies.search.sole_writer import SoleWriterStorage

UNIT = FloatDistribution(0, 1)
SIZES = CategoricalDistribution((16, 32))
STEPS = 120


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture
def stored(url: str) -> Iterator[RDBStorage]:
    storage = RDBStorage(url)
    yield storage
    storage.engine.dispose()


def trial_to_store() -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={"rate": 0.25, "size": 32},
        distributions={"rate": UNIT, "size": SIZES},
        user_attrs={"owner": "a"},
        system_attrs={},
        intermediate_values={},
    )


def check(storage: SoleWriterStorage, url: str, study_id: int) -> None:
    """Every way to read a study gives what a stranger finds in its database."""
    fresh = RDBStorage(url)
    trials = fresh.get_all_trials(study_id)
    assert storage.get_all_trials(study_id) == trials
    assert storage.get_all_trials(study_id, deepcopy=False) == trials
    for state in TrialState:
        of_state = [trial for trial in trials if trial.state is state]
        assert storage.get_all_trials(study_id, states=(state,)) == of_state
    for trial in trials:
        assert storage.get_trial(trial._trial_id) == trial
        assert storage.get_trial_number_from_id(trial._trial_id) == trial.number
        found = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        assert found == trial._trial_id
    with pytest.raises(KeyError):
        storage.get_trial_id_from_study_id_trial_number(study_id, len(trials))
    assert storage.get_study_directions(study_id) == fresh.get_study_directions(study_id)
    fresh.engine.dispose()


@pytest.mark.parametrize("kept_studies", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_writes_is_remembered_as_it_is_stored(
    stored: RDBStorage, url: str, seed: int, kept_studies: int
) -> None:
    """With one study kept of two, half of them are to a study that is not remembered."""
    chance = random.Random(seed)
    storage = SoleWriterStorage(stored, kept_studies=kept_studies)
    studies = [
        storage.create_new_study([StudyDirection.MAXIMIZE], f"study {number}")
        for number in range(2)
    ]

    def write(study_id: int) -> Callable[[], Any]:
        running = storage.get_all_trials(study_id, states=(TrialState.RUNNING,))
        if not running or chance.random() < 0.2:
            template = chance.choice([None, trial_to_store()])
            return lambda: storage.create_new_trial(study_id, template)
        trial = chance.choice(running)._trial_id
        step, value = chance.randrange(4), chance.random()
        ends = chance.choice(
            [(TrialState.COMPLETE, [value]), (TrialState.PRUNED, [value]), (TrialState.FAIL, None)]
        )
        return chance.choice(
            [
                lambda: storage.set_trial_intermediate_value(trial, step, value),
                lambda: storage.set_trial_user_attr(trial, f"note {step}", [value, "text"]),
                lambda: storage.set_trial_system_attr(trial, f"rung {step}", value),
                lambda: storage.set_trial_param(trial, f"other {step}", value, UNIT),
                lambda: storage.set_trial_state_values(trial, *ends),
            ]
        )

    for _ in range(STEPS):
        next_write = write(chance.choice(studies))
        storage.get_all_trials(chance.choice(studies))
        next_write()
    for study_id in studies:
        check(storage, url, study_id)
        check(SoleWriterStorage(stored), url, study_id)  # as after a start


def test_the_study_asked_for_least_lately_is_forgotten(
    stored: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory holds so many studies, however many a server has seen."""
    storage = SoleWriterStorage(stored, kept_studies=2)
    first, second, third = (
        storage.create_new_study([StudyDirection.MAXIMIZE], name) for name in ("a", "b", "c")
    )
    read: list[int] = []
    really_read = stored.get_all_trials

    def note(study_id: int, **options: Any) -> list[FrozenTrial]:
        read.append(study_id)
        return really_read(study_id, **options)

    monkeypatch.setattr(stored, "get_all_trials", note)
    for study_id in (first, second, first, third, first, second):
        storage.get_all_trials(study_id)
    assert read == [first, second, third, second]


def test_what_is_handed_out_may_be_written_into(stored: RDBStorage, url: str) -> None:
    storage = SoleWriterStorage(stored)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    trial_id = storage.create_new_trial(study_id, trial_to_store())
    handed = storage.get_trial(trial_id)
    handed.params["rate"] = 0.75
    handed.user_attrs["owner"] = "b"
    handed.intermediate_values[0] = 1.0
    storage.get_all_trials(study_id)[0].params["rate"] = 0.5
    check(storage, url, study_id)


@pytest.mark.parametrize("committed", [False, True], ids=["undone", "done all the same"])
def test_after_a_write_that_failed_the_database_is_read_again(
    stored: RDBStorage, url: str, committed: bool
) -> None:
    storage = SoleWriterStorage(stored)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    trial_id = storage.create_new_trial(study_id, trial_to_store())

    @event.listens_for(stored.engine, "commit")
    def fail(connection: Connection) -> None:
        if committed:
            connection.connection.commit()
        raise OSError("the disk went away")

    for write in (
        lambda: storage.set_trial_intermediate_value(trial_id, 0, 0.25),
        lambda: storage.set_trial_user_attr(trial_id, "note", 1),
        lambda: storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5]),
        lambda: storage.create_new_trial(study_id, trial_to_store()),
    ):
        with pytest.raises(OSError, match="went away"):
            write()
        event.remove(stored.engine, "commit", fail)
        check(storage, url, study_id)
        event.listen(stored.engine, "commit", fail)
    event.remove(stored.engine, "commit", fail)
    assert len(storage.get_all_trials(study_id)) == 1 + committed


def test_a_deleted_study_is_forgotten_with_its_trials(stored: RDBStorage) -> None:
    storage = SoleWriterStorage(stored)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    assert storage.get_study_id_from_name("study") == study_id
    trial_id = storage.create_new_trial(study_id)
    storage.delete_study(study_id)
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("study")
    with pytest.raises(KeyError):
        storage.get_trial(trial_id)
    with pytest.raises(KeyError):
        storage.get_all_trials(study_id)
    # SQLite gives the ids out again, to a study of the other direction.
    assert storage.create_new_study([StudyDirection.MINIMIZE], "study") == study_id
    assert storage.get_study_directions(study_id) == [StudyDirection.MINIMIZE]
    assert storage.get_all_trials(study_id) == []
    assert storage.create_new_trial(study_id) == trial_id
    assert storage.get_trial(trial_id).state is TrialState.RUNNING


def test_a_finished_trial_stays_as_it_is(stored: RDBStorage, url: str) -> None:
    storage = SoleWriterStorage(stored)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    trial_id = storage.create_new_trial(study_id, trial_to_store())
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_intermediate_value(trial_id, 0, 0.1)
    check(storage, url, study_id)


def test_a_known_study_is_read_without_the_database(
    stored: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SoleWriterStorage(stored)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    trial_id = storage.create_new_trial(study_id, trial_to_store())
    storage.get_study_id_from_name("study")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the database was read")

    for name in ("get_trial", "get_all_trials", "get_study_id_from_name", "get_study_directions"):
        monkeypatch.setattr(stored, name, refuse)
    study = optuna.load_study(study_name="study", storage=storage)
    pruner = optuna.pruners.MedianPruner()
    assert pruner.prune(study, storage.get_trial(trial_id)) is False
