"""Bad trials beside good ones, with a real server and a real worker: each is a named failure."""

from pathlib import Path

import pytest
from real_parts import StartWorker, submit, tickets, until
from uneven_trainer import (
    BETTER_THAN_ALL,
    DIES,
    LESS_WELL,
    LOST_GPU,
    NAN_LOSS,
    NO_DEVICE_MEMORY,
    NO_HOST_MEMORY,
    UNREADABLE,
    WELL,
)

from studies.api import Api

BAD = {
    DIES: ("crashed", 3, "SIGKILL"),
    NAN_LOSS: ("nan_loss", 1, "The loss is NaN."),
    NO_DEVICE_MEMORY: ("out_of_memory", 1, "One example does not fit."),
    NO_HOST_MEMORY: ("out_of_memory", 1, "lower batch_size or max_length"),
    UNREADABLE: ("unreadable_dataset", 1, "The rows cannot be read."),
    LOST_GPU: ("crashed", 3, "gpu_lost: The GPU failed."),
}
"""By learning rate: the trial's error code, its attempts, and what its error says."""


def test_a_study_goes_on_past_trials_that_fail_and_none_of_them_is_its_best(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    rates = [*BAD, WELL, LESS_WELL]
    study_id = submit(
        client,
        tickets(tmp_path),
        enqueue=[{"learning_rate": rate} for rate in rates],
        pruner={"name": "none"},
        budget={"n_trials": len(rates)},
    )
    worker = start(trainer="uneven_trainer")
    study = until(lambda: (s := client.study(study_id)).finished_at and s, lambda: worker.log)
    trials = [client.trial(study_id, number) for number in range(len(rates))]
    failed, completed = trials[: len(BAD)], trials[len(BAD) :]
    for trial, (code, attempts, says) in zip(failed, BAD.values(), strict=True):
        assert trial.error is not None
        assert (trial.state, trial.error.code, trial.attempt) == ("failed", code, attempts)
        assert says in trial.error.detail
        assert trial.epochs[0].metrics["macro_f1"] == BETTER_THAN_ALL
        assert trial.value is None
    assert [(trial.state, trial.attempt) for trial in completed] == [("completed", 1)] * 2
    assert study.state == "completed"
    assert study.best is not None
    assert study.best.number == len(BAD)
    assert study.best.value == completed[0].value == pytest.approx(0.3 * (1 - WELL))


def test_a_study_whose_every_trial_fails_has_failed_and_has_no_best(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    rates = [NAN_LOSS, DIES]
    study_id = submit(
        client,
        tickets(tmp_path),
        enqueue=[{"learning_rate": rate} for rate in rates],
        budget={"n_trials": len(rates)},
    )
    worker = start(trainer="uneven_trainer")
    study = until(lambda: (s := client.study(study_id)).finished_at and s, lambda: worker.log)
    assert study.error is not None
    assert (study.state, study.error.code, study.best) == ("failed", "no_trial_completed", None)
    assert study.trials.failed == len(rates)
