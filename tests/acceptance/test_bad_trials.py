"""Bad trials beside good ones, with a real server and a real worker: each is a named failure."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_parts import Worker, submit, tickets, until
from uneven_trainer import DIES, NAN_LOSS, NO_MEMORY, WELL

from studies import Client

BAD = {
    DIES: ("crashed", 3),
    NAN_LOSS: ("nan_loss", 1),
    NO_MEMORY: ("out_of_memory", 1),
}
"""Error code and attempts by learning rate."""


@pytest.fixture
def worker(real_server: tuple[str, str], tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(*real_server, tmp_path, "w1", "uneven_trainer")
    yield worker
    worker.process.kill()
    worker.process.wait(20)


def test_a_study_goes_on_past_trials_that_fail_and_none_of_them_is_its_best(
    real_server: tuple[str, str], worker: Worker, tmp_path: Path
) -> None:
    with Client(*real_server) as client:
        study_id = submit(
            client,
            tickets(tmp_path),
            enqueue=[{"learning_rate": rate} for rate in (*BAD, WELL)],
            budget={"n_trials": len(BAD) + 2},
        )
        study = until(lambda: (s := client.study(study_id)).finished_at and s, lambda: worker.log)
        trials = [client.trial(study_id, number) for number in range(len(BAD) + 2)]
    failed, completed = trials[: len(BAD)], trials[len(BAD) :]
    assert [(trial.error and trial.error.code, trial.attempt) for trial in failed] == [
        *BAD.values()
    ]
    assert {trial.state for trial in failed} == {"failed"}
    assert [(trial.state, trial.attempt) for trial in completed] == [("completed", 1)] * 2
    assert study.state == "completed"
    best = max(completed, key=lambda trial: (trial.value or 0, -trial.number))
    assert study.best is not None
    assert (study.best.number, study.best.value) == (best.number, best.value)
    assert failed[0].error is not None
    assert "SIGKILL" in failed[0].error.detail
