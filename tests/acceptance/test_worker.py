"""Real server, real workers, real trainers."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from real_parts import StartWorker, Worker, is_dead, submit, tickets, until
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from model.vocabulary import save_tokenizer, train_wordpiece
from service.worker.slot import CANCEL_GRACE_S
from studies.api import Api


def trial_state(client: Api, study: str) -> Callable[[], tuple[str, int]]:
    def state() -> tuple[str, int]:
        trial = client.trial(study, 0)
        return trial.state, trial.attempt

    return state


def test_a_study_is_searched_by_a_worker_and_its_best_model_is_tested_once(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "held-out").mkdir()
    test = tickets(tmp_path / "held-out", rows=30)
    study = submit(
        client,
        tickets(tmp_path),
        files={"test": test},
        enqueue=[{"learning_rate": 1e-3}, {"learning_rate": 1e-4}],
        pruner={"name": "none"},
        budget={"n_trials": 3},
    )
    worker = start()

    done = until(lambda: (s := client.study(study)).finished_at and s, lambda: worker.log)

    assert done.state == "completed", (done.error, worker.log)
    assert done.trials.completed == 3
    trials = [client.trial(study, number) for number in range(3)]
    assert [trial.params["learning_rate"] for trial in trials if trial.params][:2] == [1e-3, 1e-4]
    assert all(len(trial.epochs) == 3 for trial in trials)
    assert all(trial.value == trial.metrics["macro_f1"] for trial in trials)
    assert done.best is not None
    assert done.best.value == max(trial.value for trial in trials if trial.value is not None)
    assert done.test is not None
    assert done.test.opened == 1
    matrix = client.confusion(study, done.best.number, "test")
    assert (sum(map(sum, matrix.matrix)), matrix.labels) == (31, ["bill", "login", "refund"])
    right = sum(matrix.matrix[k][k] for k in range(3))
    assert right / 31 == pytest.approx(done.test.metrics["accuracy"])
    assert len(worker.trainer_pids()) == 1  # warm throughout

    folder = client.download_best(study, tmp_path / "best")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    assert loaded.config.id2label == {0: "bill", 1: "login", 2: "refund"}


def test_a_model_folder_of_the_server_reaches_a_worker_by_its_hashes(
    client: Api, start: StartWorker, models: Path, tmp_path: Path
) -> None:
    folder = models / "small-bert"
    config = BertConfig(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    texts = tickets(tmp_path).read_text(encoding="utf-8").splitlines()
    save_tokenizer(train_wordpiece(texts, vocab_size=200), folder)
    study = submit(client, tmp_path / "tickets.csv", model="local:small-bert")
    worker = start()
    done = until(lambda: (s := client.study(study)).finished_at and s, lambda: worker.log)
    assert done.state == "completed", (done.error, worker.log)
    cached = list((tmp_path / "cache" / "models").glob("*/config.json"))
    assert [path.read_bytes() for path in cached] == [(folder / "config.json").read_bytes()]


def test_sigterm_hands_the_trial_to_the_next_worker_unharmed(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    study = submit(client, tickets(tmp_path, "deaf"))
    state = trial_state(client, study)
    first = start("w1", trainer="fake_trainer")
    until(lambda: "deaf from here on" in first.log, lambda: first.log)

    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(10) == 0, first.log
    assert state() == ("queued", 1)

    second = start("w2", trainer="fake_trainer")
    until(lambda: state() == ("running", 2), lambda: second.log)


def test_a_trainer_that_is_killed_costs_one_attempt(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    study = submit(client, tickets(tmp_path, "wait"))
    state = trial_state(client, study)
    worker = start(trainer="fake_trainer")
    until(lambda: "trainer: waiting" in worker.log, lambda: worker.log)

    os.kill(worker.trainer_pids()[0], signal.SIGKILL)

    until(lambda: state() == ("running", 2), lambda: worker.log)
    assert len(until(lambda: len(p := worker.trainer_pids()) == 2 and p)) == 2


def test_a_trial_whose_trainer_always_dies_is_given_up_and_the_study_ends(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    study = submit(client, tickets(tmp_path, "die"))
    worker = start(trainer="fake_trainer")
    done = until(lambda: (s := client.study(study)).finished_at and s, lambda: worker.log)
    assert (done.state, done.error.code) == ("failed", "no_trial_completed")
    trial = client.trial(study, 0)
    assert (trial.state, trial.attempt) == ("failed", 3)
    assert trial.error is not None
    assert "SIGKILL" in trial.error.detail


def test_a_worker_that_froze_past_its_lease_is_fenced_and_its_trainer_killed(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    study = submit(client, tickets(tmp_path, "deaf"))
    state = trial_state(client, study)
    frozen = start("w1", trainer="fake_trainer")
    until(lambda: "deaf from here on" in frozen.log, lambda: frozen.log)
    trainer = frozen.trainer_pids()[0]

    frozen.process.send_signal(signal.SIGSTOP)
    start("w2", trainer="fake_trainer")
    until(lambda: state() == ("running", 2))
    frozen.process.send_signal(signal.SIGCONT)

    until(lambda: "lost" in frozen.log, lambda: frozen.log)
    until(lambda: is_dead(trainer), lambda: frozen.log)
    assert state() == ("running", 2)


def test_a_cancelled_study_stops_its_trainer_which_stays_for_the_next(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    study = submit(client, tickets(tmp_path, "wait"))
    worker = start(trainer="fake_trainer")
    until(lambda: "trainer: waiting" in worker.log, lambda: worker.log)
    client.cancel(study)
    until(lambda: "cancelled" in worker.log, lambda: worker.log)
    (tmp_path / "next").mkdir()
    following = submit(client, tickets(tmp_path / "next"))
    until(lambda: client.study(following).state == "completed", lambda: worker.log)
    assert len(worker.trainer_pids()) == 1
    assert client.study(study).state == "cancelled"


def test_a_cancelled_trials_trainer_that_does_not_react_is_killed_and_replaced(
    client: Api, start: StartWorker, tmp_path: Path
) -> None:
    study = submit(client, tickets(tmp_path / "deaf", "deaf"))
    worker = start(trainer="fake_trainer")
    until(lambda: "deaf from here on" in worker.log, lambda: worker.log)
    [deaf] = worker.trainer_pids()
    client.cancel(study)
    until(lambda: is_dead(deaf), lambda: worker.log, within_s=CANCEL_GRACE_S + 10)
    following = submit(client, tickets(tmp_path / "next"))
    until(lambda: client.study(following).state == "completed", lambda: worker.log)
    assert [deaf] == worker.trainer_pids()[:-1]
    trial = client.trial(study, 0)
    assert (trial.state, trial.attempt) == ("cancelled", 1)
    assert client.trial(following, 0).attempt == 1


def test_a_worker_with_a_wrong_key_says_so_and_ends(
    real_server: tuple[str, str], tmp_path: Path
) -> None:
    worker = Worker(real_server[0], "wrong", tmp_path, "w1", "fake_trainer")
    assert worker.process.wait(60) == 1
    assert "refuses this worker" in worker.log
    assert "Traceback" not in worker.log
