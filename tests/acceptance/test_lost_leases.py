"""A worker that froze past its lease: another one has its trials, and nothing it says counts."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from holding_proxy import CALLS, HoldingProxy, holding_proxy
from real_parts import StartWorker, is_dead, submit, tickets, until

from studies.api import Api
from studies.wire.trials import TrialAnswer

DEATH_S = 5.0
"""How long the trainer of a lost lease may live on."""


@pytest.fixture
def proxy(each_server: tuple[str, str]) -> Iterator[HoldingProxy]:
    with holding_proxy(each_server[0]) as proxy:
        yield proxy


def queue(client: Api, folder: Path, call: str) -> str:
    """Submit a study of one trial whose first worker gets as far as that call."""
    # One that only renews is at work for ever; all others come to their end.
    data = tickets(folder / call, "deaf" if call == "renewal" else "fine")
    changes: dict[str, Any] = {"checkpoint": {"upload": True}} if call == "checkpoint" else {}
    return submit(client, data, name=call, **changes)


def standing(server: tuple[str, str], study: str) -> tuple[TrialAnswer, object]:
    """A study's trial as the server tells of it, and the trial's artifacts. How far it is counts
    the time that passes, whoever speaks, and is left out."""
    url, key = server
    headers = {"Authorization": f"Bearer {key}"}
    artifacts = httpx.get(f"{url}/v1/studies/{study}/trials/0/artifacts", headers=headers)
    with Api(url, key) as client:
        trial = client.trial(study, 0).model_copy(update={"progress": None})
        return trial, artifacts.raise_for_status().json()


def test_a_frozen_workers_trials_are_taken_over_and_409_answers_whatever_it_was_about_to_say(
    each_server: tuple[str, str],
    client: Api,
    proxy: HoldingProxy,
    start: StartWorker,
    tmp_path: Path,
) -> None:
    studies = {call: queue(client, tmp_path, call) for call in CALLS}
    frozen = start("w1", "fake_trainer", url=proxy.url, slots=len(CALLS))
    until(lambda: proxy.holding == {*CALLS}, lambda: frozen.log)
    until(lambda: "deaf from here on" in frozen.log, lambda: frozen.log)
    trainers = frozen.trainer_pids()
    assert len(trainers) == len(CALLS)

    frozen.process.send_signal(signal.SIGSTOP)
    second = start("w2", "fake_trainer", folder=tmp_path / "second", slots=len(CALLS))

    def taken_over(call: str) -> bool:
        trial = client.trial(studies[call], 0)
        ended = "running" if call == "renewal" else "completed"
        return trial.attempt == 2 and trial.state == ended and bool(trial.epochs)

    until(lambda: all(map(taken_over, CALLS)), lambda: second.log)
    before = {call: standing(each_server, study) for call, study in studies.items()}
    proxy.let_go()
    until(lambda: proxy.answers.keys() == {*CALLS}, lambda: frozen.log)
    assert proxy.answers == dict.fromkeys(CALLS, (409, "lease_lost"))
    assert not any(map(is_dead, trainers))

    frozen.process.send_signal(signal.SIGCONT)  # it finds the answers
    until(lambda: all(map(is_dead, trainers)), lambda: frozen.log, within_s=DEATH_S)
    assert {call: standing(each_server, study) for call, study in studies.items()} == before
    for trial, _ in before.values():
        assert [attempt.worker for attempt in trial.attempts] == ["w1", "w2"]
        assert trial.attempts[0].outcome == "lost"
