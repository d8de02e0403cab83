"""The command line as people and scripts run it: real processes, a real server."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from studies import Client

WAIT_S = 100
SUPPORT = Path(__file__).parents[1] / "support"
SPEC = """
name: tickets
dataset: {train: data/tickets.csv, test: data/test.csv, name: help desk}
training: {epochs: 2}
search_space:
  learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}
budget: {n_trials: 3}
enqueue:
  - {learning_rate: 5e-3}
labels: {team: support}
"""
Environment = dict[str, str]


def rows(count: int) -> str:
    words = ("refund", "login", "bill")
    return "text,label\n" + "".join(
        f"please help with my {words[i % 3]} number {i},{words[i % 3]}\n" for i in range(count)
    )


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "work" / "data").mkdir(parents=True)
    (tmp_path / "work" / "data" / "tickets.csv").write_text(rows(60))
    (tmp_path / "work" / "data" / "test.csv").write_text(rows(12))
    path = tmp_path / "work" / "spec.yaml"
    path.write_text(SPEC)
    return path


def clean_environment(**own: str) -> Environment:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTUNE_")}
    return {**kept, "COLUMNS": "100", **own}


@pytest.fixture
def environment(real_server: tuple[str, str]) -> Environment:
    url, key = real_server
    return clean_environment(BERTUNE_SERVER=url, BERTUNE_KEY=key)


def bertune(
    environment: Environment, *arguments: object, code: int = 0
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def answer(environment: Environment, *arguments: object) -> Any:
    return json.loads(bertune(environment, *arguments, "--json").stdout)


def until(what: Callable[[], Any], log: Callable[[], str] = str) -> Any:
    """The first true answer of ``what``, asked again and again for a bounded time."""
    deadline = time.monotonic() + WAIT_S
    while not (found := what()):
        assert time.monotonic() < deadline, log()
        threading.Event().wait(0.05)
    return found


@pytest.fixture
def fake_worker(environment: Environment, tmp_path: Path) -> Iterator[None]:
    """A worker whose trainer learns nothing but says that it did."""
    command = [sys.executable, "-m", "service.cli", "worker", "--trainer", "fake_trainer"]
    own = {"PYTHONPATH": str(SUPPORT), "BERTUNE_HOME": str(tmp_path / "worker-home")}
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env={**environment, **own}, stderr=log)
    yield
    process.terminate()
    assert process.wait(20) == 0


# Studies


def test_a_spec_with_local_files_is_uploaded_trained_watched_and_read_back(
    environment: Environment, fake_worker: None, spec: Path, tmp_path: Path
) -> None:
    submitted = bertune(environment, "submit", spec, "--watch")
    assert "trial 0 started  learning_rate=0.005" in submitted.stdout
    for number in range(3):
        assert f"trial {number} completed  macro_f1" in submitted.stdout
    assert "test" in submitted.stdout
    assert "\x1b" not in submitted.stdout

    study = answer(environment, "show", "tickets")
    assert study["state"] == "completed"
    assert study["labels"] == {"team": "support"}
    assert study["test"]["opened"] == 1
    # The fake trainer's score falls with the rate, so the lowest rate is best.
    trials = answer(environment, "trials", study["id"])
    lowest = min(trials, key=lambda trial: float(trial["params"]["learning_rate"]))
    assert study["best"]["number"] == lowest["number"]
    assert [found["id"] for found in answer(environment, "studies", "--label", "team:support")] == [
        study["id"]
    ]
    assert answer(environment, "studies", "--state", "failed") == []

    matrix = answer(environment, "confusion", "tickets")
    assert matrix["labels"] == ["bill", "login", "refund"]
    assert answer(environment, "confusion", "tickets", 0, "--split", "validation")["rows"] == 3
    drawn = bertune(environment, "confusion", "tickets", "--split", "test").stdout
    assert "rows are true labels, columns predictions" in drawn

    bertune(environment, "best", "tickets", "--download", tmp_path / "model")
    assert (tmp_path / "model" / "weights").exists()
    again = bertune(environment, "best", "tickets", "--download", tmp_path / "model", code=2)
    assert "exists already" in again.stderr

    workers = answer(environment, "workers")
    assert [worker["device"]["name"] for worker in workers] == ["fake"]


def test_tables_show_what_json_says(environment: Environment, spec: Path) -> None:
    study = answer(environment, "submit", spec)
    listed = bertune(environment, "studies").stdout
    assert study["id"] in listed
    assert "0/3" in listed
    assert "queued" in bertune(environment, "trials", "tickets").stdout
    assert "maximize macro_f1" in bertune(environment, "show", "tickets").stdout
    one = bertune(environment, "confusion", "tickets", code=1)
    assert "no completed trial, so there is no best one" in one.stderr
    assert one.stdout == ""


def test_a_study_that_does_not_complete_makes_watching_exit_with_1(
    environment: Environment, spec: Path
) -> None:
    study = answer(environment, "submit", spec)
    assert answer(environment, "cancel", study["id"])["state"] == "cancelled"
    watched = bertune(environment, "watch", "tickets", code=1)
    assert "cancelled" in watched.stdout


def test_interrupting_a_watch_leaves_the_study_running_and_says_so(
    environment: Environment, spec: Path
) -> None:
    command = [sys.executable, "-m", "service.cli", "submit", str(spec), "--watch"]
    process = subprocess.Popen(
        command,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Submitted tickets")
        until(lambda: answer(environment, "studies"))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "the study goes on" in stderr
    assert "Traceback" not in stderr
    assert answer(environment, "show", "tickets")["state"] == "queued"


# Steering


def test_a_study_is_paused_and_resumed_and_each_answer_says_what_comes_next(
    environment: Environment, spec: Path
) -> None:
    study = answer(environment, "submit", spec)
    paused = bertune(environment, "pause", "tickets").stdout
    assert f"tickets ({study['id']}) is paused." in paused
    assert f"bertune resume {study['id']}" in paused
    assert "running trials finish" in bertune(environment, "show", "tickets").stdout
    again = answer(environment, "pause", study["id"], "--preempt")
    assert (again["state"], again["pause"]) == ("paused", "preempt")

    resumed = bertune(environment, "resume", "tickets").stdout
    assert "3 of its trials queued" in resumed
    assert f"bertune watch {study['id']}" in resumed
    assert answer(environment, "resume", "tickets")["pause"] is None


def test_watching_a_paused_study_says_so_once_and_goes_on_when_it_is_resumed(
    environment: Environment, spec: Path, tmp_path: Path
) -> None:
    study = answer(environment, "submit", spec)
    answer(environment, "pause", study["id"])
    log = tmp_path / "watch.log"
    command = [sys.executable, "-u", "-m", "service.cli", "watch", "tickets"]
    with log.open("wb") as output:
        watching = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        until(lambda: "paused: no new trials start" in log.read_text(), log.read_text)
        answer(environment, "resume", study["id"])
        until(lambda: "\nresumed\n" in log.read_text(), log.read_text)
        answer(environment, "extend", study["id"], 4)
        until(lambda: "extended to 7 trials" in log.read_text(), log.read_text)
        answer(environment, "cancel", study["id"])
        assert watching.wait(WAIT_S) == 1
    finally:
        watching.kill()
        watching.wait()
    assert log.read_text().count("paused: no new") == 1


def test_a_completed_study_is_extended_watched_to_its_end_and_deleted(
    environment: Environment, fake_worker: None, spec: Path
) -> None:
    bertune(environment, "submit", spec, "--watch")
    extended = bertune(environment, "extend", "tickets", 2, "--watch").stdout
    assert "now with 5 trials" in extended
    assert "trial 4 completed" in extended
    study = answer(environment, "show", "tickets")
    assert (study["state"], study["progress"]["done"]) == ("completed", 5)
    assert study["disk_bytes"] > 0

    unasked = bertune(environment, "delete", "tickets", code=2)
    assert "--yes" in unasked.stderr
    assert answer(environment, "delete", "tickets", "--yes")["id"] == study["id"]
    assert answer(environment, "studies") == []
    assert "No study has" in bertune(environment, "delete", "tickets", "--yes", code=1).stderr
    assert answer(environment, "dataset", "show", study["dataset"])["id"] == study["dataset"]


def test_deleting_asks_a_person_first(environment: Environment, spec: Path) -> None:
    study = answer(environment, "submit", spec)
    code, said = bertune_asked(environment, "delete", "tickets", reply="n")
    assert (code, "Nothing was deleted." in said) == (1, True)
    assert "queued, with 3 trials and 0 B of models" in said
    assert answer(environment, "show", study["id"])["state"] == "queued"
    code, said = bertune_asked(environment, "delete", "tickets", reply="y")
    assert (code, "is deleted" in said) == (0, True)
    assert answer(environment, "studies") == []


def bertune_asked(environment: Environment, *arguments: object, reply: str) -> tuple[int, str]:
    """The exit code and output of a command that asks at a terminal."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{reply}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", *map(str, arguments)],
            env=environment,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout


def test_an_ended_study_is_steered_no_more(environment: Environment, spec: Path) -> None:
    bertune(environment, "submit", spec)
    bertune(environment, "cancel", "tickets")
    for command in (("pause",), ("resume",), ("extend", 1)):
        refused = bertune(environment, command[0], "tickets", *command[1:], code=1)
        assert "[study_ended]" in refused.stderr
    assert bertune(environment, "delete", "tickets", "--yes").stdout.startswith("tickets (")


def test_what_happened_to_a_trial_is_told_attempt_by_attempt(
    environment: Environment, fake_worker: None, spec: Path
) -> None:
    # The text of a training row tells the fake trainer what to do.
    data = "text,label\n" + "".join(f"die,{'ab'[i % 2]}\n" for i in range(40))
    (spec.parent / "data" / "tickets.csv").write_text(data)
    (spec.parent / "data" / "test.csv").write_text(data)
    spec.write_text(SPEC.replace("n_trials: 3", "n_trials: 1"))
    watched = bertune(environment, "submit", spec, "--watch", code=1).stdout
    assert "trial 0 started again (attempt 3)" in watched
    assert "trial 0 failed  crashed: Quarantined after 3 crashes" in watched
    trial = answer(environment, "show", "tickets", 0)
    assert [attempt["outcome"] for attempt in trial["attempts"]] == ["crashed"] * 3
    assert {attempt["error"]["code"] for attempt in trial["attempts"]} == {"trainer_crashed"}
    drawn = bertune(environment, "show", "tickets", 0).stdout
    assert len(re.findall(r"crashed +\d+ s +trainer_crashed: ", drawn)) == 3
    assert re.search(r"^# +state.* attempt ", bertune(environment, "trials", "tickets").stdout)


def test_validating_reports_token_lengths_and_stores_no_study(
    environment: Environment, spec: Path
) -> None:
    found = answer(environment, "validate", spec)
    assert found["resolved"]["objective"] == {"metric": "macro_f1", "direction": "maximize"}
    assert found["token_lengths"]["max"] >= 7
    assert "tokens" in bertune(environment, "validate", spec).stdout
    assert answer(environment, "studies") == []


def test_a_preset_takes_a_data_file_and_a_name(environment: Environment, spec: Path) -> None:
    data = spec.parent / "data" / "tickets.csv"
    study = answer(environment, "submit", "--preset", "quick", "--data", data, "--name", "mine")
    assert (study["name"], study["progress"]["total"]) == ("mine", 12)
    by_id = answer(environment, "submit", spec, "--data", study["dataset"])
    assert by_id["dataset"] == study["dataset"]


# Data sets


def test_a_data_set_is_added_listed_and_shown(environment: Environment, tmp_path: Path) -> None:
    path = tmp_path / "intents.tsv"
    path.write_text("sentence\tintent\n" + "a b c\tx\nd e f\ty\n" * 20)
    add = ("dataset", "add", path, "--option", "text=sentence", "--option", "label=intent")
    made = answer(environment, *add, "--option", "validation_fraction=0.25", "--name", "intents")
    assert made["labels"] == ["x", "y"]
    assert made["name"] == "intents"
    assert [d["id"] for d in answer(environment, "dataset", "list")] == [made["id"]]
    assert answer(environment, "dataset", "show", made["id"]) == made
    assert "intents" in bertune(environment, "dataset", "list").stdout
    assert "x" in bertune(environment, "dataset", "show", made["id"]).stdout

    unknown = bertune(environment, *add, "--option", "colour=red", code=1)
    assert "colour" in unknown.stderr


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("low: 1e-4", "low: much"), "search_space.learning_rate.float.low"),
        (("budget:", "budgets:"), "budgets: there is no such field"),
        (("budget: {n_trials: 3}", "checkpoint: all"), "checkpoint: fields with values"),
        (("data/tickets.csv", "data/absent.csv"), "dataset.train: There is no file"),
        (("name: help desk", "names: help desk"), "dataset.names: Known: train"),
        (("enqueue:\n", "enqueue: [\n"), "spec.yaml.line"),
    ],
)
def test_a_wrong_spec_is_refused_before_anything_is_sent(
    spec: Path, change: tuple[str, str], message: str
) -> None:
    spec.write_text(SPEC.replace(*change))
    # No server is needed to hear of it.
    refused = bertune(clean_environment(BERTUNE_SERVER=nowhere()), "submit", spec, code=2)
    assert message in refused.stderr


def nowhere() -> str:
    """An address on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit",),
        ("submit", "absent.yaml"),
        ("submit", "--preset", "absent", "--data", "x"),
        ("studies", "--state", "asleep"),
        ("dataset", "add", __file__, "--option", "nothing"),
        ("no-such-command",),
        ("worker", "--slots", "0"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    bertune(clean_environment(BERTUNE_SERVER=nowhere()), *arguments, code=2)


def test_an_unreachable_server_exits_with_3_and_says_what_to_do() -> None:
    server = nowhere()
    unreachable = bertune(clean_environment(BERTUNE_SERVER=server), "studies", code=3)
    assert server in unreachable.stderr
    assert "bertune up" in unreachable.stderr
    assert len(unreachable.stderr.splitlines()) == 1


def test_what_the_server_refuses_exits_with_1(environment: Environment, spec: Path) -> None:
    absent = bertune(environment, "show", "absent", code=1)
    assert "No study has the id or name 'absent'." in absent.stderr
    no_key = bertune({**environment, "BERTUNE_KEY": "wrong"}, "studies", code=1)
    assert "BERTUNE_KEY" in no_key.stderr
    spec.write_text(SPEC.replace("low: 1e-4", "low: 1"))
    inverted = bertune(environment, "submit", spec, code=1)
    assert "inverted_range" in inverted.stderr
    assert "search_space.learning_rate" in inverted.stderr


def test_a_broken_setting_is_named_by_its_variable() -> None:
    broken = bertune(clean_environment(BERTUNE_PORT="many"), "serve", code=2)
    assert "BERTUNE_PORT" in broken.stderr


def test_help_is_quick_because_it_loads_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['bertune', '--help']; from service.cli import app\n"
        "try: app()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = 'fastapi optuna torch transformers sqlalchemy httpx pydantic numpy'.split()\n"
        "found = [name for name in heavy if name in sys.modules]\n"
        "assert not found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    for part in ("Exit codes", "submit", "demo"):
        assert part in done.stdout


# Keys, database, doctor


def test_keys_are_made_listed_and_revoked_on_the_servers_machine(tmp_path: Path) -> None:
    home = clean_environment(BERTUNE_HOME=str(tmp_path / "home"))
    assert "0002" in bertune(home, "db", "upgrade").stdout
    assert "as it was" in bertune(home, "db", "upgrade").stdout
    secret = bertune(home, "keys", "create", "ci").stdout.strip()
    assert secret.startswith("bt_")
    listed = bertune(home, "keys", "list", "--json").stdout
    assert secret not in listed
    assert [(key["name"], key["revoked_at"]) for key in json.loads(listed)] == [("ci", None)]
    assert "1 key revoked" in bertune(home, "keys", "revoke", "ci").stdout
    assert "No valid key" in bertune(home, "keys", "revoke", "ci", code=1).stderr
    assert answer(home, "keys", "list")[0]["revoked_at"] is not None


def test_a_database_that_does_not_answer_exits_with_3(tmp_path: Path) -> None:
    port = nowhere().rpartition(":")[2]
    url = f"postgresql+psycopg://nobody@127.0.0.1:{port}/none"
    home = clean_environment(BERTUNE_HOME=str(tmp_path), BERTUNE_DATABASE_URL=url)
    assert "database does not answer" in bertune(home, "serve", "--port", 0, code=3).stderr
    doctor = json.loads(bertune(home, "doctor", "--json", code=1).stdout)
    assert {finding["level"] for finding in doctor if "database" in finding["subject"]} == {"fail"}


def test_doctor_finds_a_working_server(environment: Environment, tmp_path: Path) -> None:
    home = {**environment, "BERTUNE_HOME": str(tmp_path / "home")}
    findings = json.loads(bertune(home, "doctor", "--json").stdout)
    levels = {finding["subject"]: finding["level"] for finding in findings}
    assert levels["python"] == "ok"
    assert levels["sqlite database"] == "ok"
    server = next(finding for finding in findings if finding["subject"] == "server")
    assert "no workers" in server["detail"]
    assert all(finding["advice"] for finding in findings if finding["level"] != "ok")


# Server and workers in one


class Up:
    """A `bertune up` process and what it says."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._log = home.parent / "up.log"
        command = [sys.executable, "-m", "service.cli", "up", "--home", str(home), *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=clean_environment(), stdout=log, stderr=log, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def find(self, pattern: str) -> str:
        def look() -> str | None:
            assert self.process.poll() is None, self.log
            found = re.search(pattern, self.log)
            return found and found.group()

        return str(until(look, lambda: self.log))


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        started.append(Up(tmp_path / "home", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(20)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    lists = [(task / "children").read_text() for task in tasks.iterdir()]
    return [int(child) for text in lists for child in text.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_up_logs_a_browser_in_starts_workers_and_stops_everything_at_ctrl_c(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    running = up("--port", "0", "--workers", "2")
    link = running.find(r"http://\S+/login\?token=\S+")
    url = link.partition("/login")[0]
    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        page = browser.get(link)
        assert page.status_code == 200
        assert page.url.path.startswith("/dashboard")
        assert browser.get(f"{url}/v1/workers").status_code == 200

    key = (tmp_path / "home" / "admin.key").read_text().strip()
    with Client(url, key) as client:
        until(lambda: len(client.workers()) == 2, lambda: running.log)
    workers = children(running.process.pid)
    assert len(workers) == 2
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(30) == 0, running.log
    assert not any(alive(pid) for pid in workers)
    assert "Traceback" not in running.log


def test_up_starts_a_worker_again_that_died_and_workers_die_with_it(
    up: Callable[..., Up],
) -> None:
    running = up("--port", "0")
    running.find("worker .*, slots: 1")
    (first,) = until(lambda: children(running.process.pid))
    os.kill(first, signal.SIGKILL)
    running.find("ended with status -9; starting it again")
    (second,) = until(lambda: [c for c in children(running.process.pid) if c != first])
    named = re.compile(r"worker (\S+), slots: 1")
    until(lambda: len(set(named.findall(running.log))) == 2, lambda: running.log)
    running.process.kill()
    until(lambda: not alive(second))


def test_a_second_server_on_one_sqlite_file_is_refused(up: Callable[..., Up]) -> None:
    running = up("--port", "0")
    running.find("worker .*, slots: 1")
    second = up("--port", "0")
    assert second.process.wait(30) != 0
    assert re.search("Another server runs on .*bertune.db", second.log)
    assert "Traceback" not in second.log
    assert running.process.poll() is None


def test_a_taken_port_is_said_plainly(up: Callable[..., Up], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        home = clean_environment(BERTUNE_HOME=str(tmp_path / "home"))
        refused = bertune(home, "up", "--port", port, code=2)
    assert f"127.0.0.1:{port} is taken by another program" in refused.stderr
