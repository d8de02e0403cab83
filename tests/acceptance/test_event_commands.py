"""`bertune events` and `bertune webhook`, against a server in this process and a real receiver."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import make_study
from command_line import Environment, answer, bertune, clean_environment
from live_server import LiveServer, live_server
from real_parts import until
from receiver import receiving

from service.store.database import Database
from service.store.events import append_event


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    database = Database(f"sqlite:///{tmp_path / 'bertune.db'}")
    with live_server(database, tmp_path / "home", webhook_private=("127.0.0.0/8",)) as live:
        yield live
    database.dispose()


@pytest.fixture
def environment(server: LiveServer) -> Environment:
    key = server.headers["Authorization"].removeprefix("Bearer ")
    return clean_environment(BERTUNE_SERVER=server.url, BERTUNE_KEY=key)


def happen(server: LiveServer, *kinds: str, study_id: str | None = None) -> None:
    with server.context.database.transaction() as session:
        for kind in kinds:
            append_event(session, kind, study_id=study_id, data={"number": 1, "value": 0.5})


def test_events_are_shown_by_study_type_and_number_and_followed_to_the_end(
    server: LiveServer, environment: Environment
) -> None:
    assert bertune(environment, "events").stdout == "No such events.\n"
    study_id = make_study(server.context.database)
    happen(server, "study.paused", "study.best", study_id=study_id)
    happen(server, "schedule.skipped")
    assert [event["type"] for event in answer(environment, "events", "tickets")] == [
        "study.paused",
        "study.best",
    ]
    assert bertune(environment, "events", "--last", 1, "-q").stdout == "3\n"
    best = bertune(environment, "events", "--type", "study.best").stdout
    assert "study.best  tickets: trial 1 is the best so far with  0.5." in best
    wrong = bertune(environment, "events", "tickets", "--label", "a:b", code=2)
    assert "not both" in wrong.stderr
    bertune(environment, "cancel", "tickets")
    followed = bertune(environment, "events", "tickets", "--follow", "--json").stdout
    types = [json.loads(line)["type"] for line in followed.splitlines()]
    assert types[:2] == ["study.paused", "study.best"]
    assert types[-1] == "study.cancelled"


def test_ctrl_c_ends_following_with_its_own_exit_code(
    server: LiveServer, environment: Environment
) -> None:
    happen(server, "schedule.skipped")
    following = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "events", "--follow", "--type", "schedule.*"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert "schedule.skipped" in following.stdout.readline()
    happen(server, "schedule.submitted")
    assert "schedule.submitted" in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=60)
    assert (following.returncode, said) == (130, "")


def delivered(environment: Environment) -> set[str]:
    sent = answer(environment, "webhook", "deliveries", "hook", "--state", "delivered")
    return {delivery["id"] for delivery in sent}


def test_a_webhook_is_added_tested_changed_listed_and_removed(
    environment: Environment, tmp_path: Path
) -> None:
    assert "No webhooks" in bertune(environment, "webhook", "list").stdout
    with receiving() as receiver:
        added = bertune(
            environment,
            "webhook",
            "add",
            receiver.url,
            "--name",
            "hook",
            "--event",
            "study.*",
            "-q",
        )
        assert added.stdout.startswith("whsec_")
        (listed,) = answer(environment, "webhook", "list")
        assert (listed["name"], listed["events"]) == ("hook", ["study.*"])
        assert "hook" in bertune(environment, "webhook", "list").stdout
        said = bertune(environment, "webhook", "test", "hook").stdout
        assert said.startswith("hook: delivered, answered 204 after ")
        receiver.answer = lambda _request: 500
        failed = bertune(environment, "webhook", "test", "hook", code=1).stdout
        assert failed == "hook: not delivered. It answered 500.\n"
        tries = answer(environment, "webhook", "deliveries", "hook")
        assert [delivery["state"] for delivery in tries] == ["failed", "delivered"]
        drawn = bertune(environment, "webhook", "deliveries", "hook", "--state", "failed").stdout
        assert "webhook.test" in drawn
        assert "It answered 500." in drawn
        receiver.answer = lambda _request: 204
        failed_id = tries[0]["id"]
        again = bertune(environment, "webhook", "redeliver", "hook", failed_id, "-q").stdout
        assert again == f"{failed_id}\n"
        until(lambda: delivered(environment) == {tries[0]["id"], tries[1]["id"]})
        gone = bertune(environment, "webhook", "redeliver", "hook", "nope", code=1)
        assert "nope" in gone.stderr
        changed = bertune(
            environment, "webhook", "edit", "hook", "--disable", "--event", "*", "--new-secret"
        ).stdout
        assert "Webhook hook" in changed
        assert "It signs with whsec_" in changed
        (edited,) = answer(environment, "webhook", "list")
        assert (edited["enabled"], edited["events"], edited["url"]) == (False, ["*"], receiver.url)
        nothing = bertune(environment, "webhook", "edit", "hook", code=2)
        assert "Say what to change" in nothing.stderr
    secret = tmp_path / "secret"
    secret.write_text("sixteen or more characters\n")
    arguments = ("http://127.0.0.1:9", "--name", "own", "--label", "team:support")
    own = bertune(environment, "webhook", "add", *arguments, "--secret-file", secret)
    assert "sixteen" not in own.stdout
    near = bertune(environment, "webhook", "remove", "hok", "--yes", code=1)
    assert "Did you mean 'hook'?" in near.stderr
    bertune(environment, "webhook", "remove", "hook", "--yes")
    assert [webhook["name"] for webhook in answer(environment, "webhook", "list")] == ["own"]
