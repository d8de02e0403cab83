"""The command line as people and scripts run it: real processes, a real server."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from command_line import (
    WAIT_S,
    Environment,
    answer,
    bertune,
    bertune_asked,
    clean_environment,
    nowhere,
)
from real_parts import until

from service.cli import app
from service.store.schema import head_revision
from studies.api import Api

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
    assert {worker["device"]["name"] for worker in workers} == {"fake"}


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
    # The text of the first training row tells the fake trainer what to do.
    rows = [f"case {i},{'ab'[i % 2]}" for i in range(60)]
    (spec.parent / "data" / "tickets.csv").write_text(
        "\n".join(["text,label", "die,a", *rows[:40]])
    )
    (spec.parent / "data" / "test.csv").write_text("\n".join(["text,label", *rows[40:]]))
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
    rows = [f"case {i}\t{'xy'[i % 2]}\n" for i in range(40)]
    path.write_text("sentence\tintent\n" + "".join([*rows, rows[0]]))
    add = ("dataset", "add", path, "--option", 'text=["sentence"]', "--option", "label=intent")
    made = answer(environment, *add, "--option", "validation_fraction=0.25", "--name", "intents")
    assert made["labels"] == ["x", "y"]
    assert made["name"] == "intents"
    assert made["id"] in [dataset["id"] for dataset in answer(environment, "dataset", "list")]
    assert answer(environment, "dataset", "show", made["id"]) == made
    assert "intents" in bertune(environment, "dataset", "list").stdout
    shown = bertune(environment, "dataset", "show", made["id"]).stdout
    assert "duplicate 1" in shown
    assert "warning: 1 of 41 train rows were dropped, as text and label stood there" in shown

    unknown = bertune(environment, *add, "--option", "colour=red", code=1)
    assert "colour" in unknown.stderr


# Output


def commands() -> Iterator[tuple[str, ...]]:
    """The path of every command that there is."""
    for info in app.registered_commands:
        yield (str(info.name),)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for info in group.typer_instance.registered_commands:
            assert info.callback is not None
            yield (str(group.name), info.name or info.callback.__name__)


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_that_answers_has_json_and_quiet(path: tuple[str, ...]) -> None:
    said = bertune(clean_environment(), *path, "--help").stdout
    answers = path not in {("up",), ("serve",), ("worker",)}
    assert ("--json" in said, "--quiet" in said) == (answers, answers)


def test_quiet_says_ids_and_states_alone_and_json_stays_whole(
    environment: Environment, spec: Path
) -> None:
    submitted = bertune(environment, "submit", spec, "--quiet")
    study = answer(environment, "show", "tickets")
    assert (submitted.stdout, submitted.stderr) == (f"{study['id']}\n", "")
    for arguments, said in (
        (("studies",), f"{study['id']}\n"),
        (("show", "tickets"), "queued\n"),
        (("show", "tickets", 1), "queued\n"),
        (("trials", "tickets"), "0\n1\n2\n"),
        (("validate", spec), ""),
        (("pause", "tickets"), ""),
        (("resume", "tickets"), ""),
        (("extend", "tickets", 1), ""),
        (("dataset", "show", study["dataset"]), f"{study['dataset']}\n"),
        (("cancel", "tickets"), ""),
    ):
        quiet = bertune(environment, *arguments, "-q")
        assert (quiet.stdout, quiet.stderr) == (said, ""), arguments
    watched = bertune(environment, "watch", "tickets", "-q", code=1)
    assert (watched.stdout, watched.stderr) == ("cancelled\n", "")
    both = bertune(environment, "submit", spec, "--json", "--quiet")
    assert json.loads(both.stdout)["name"] == "tickets"
    assert both.stderr == ""
    loud = bertune(environment, "submit", spec, "--json")
    assert json.loads(loud.stdout)["name"] == "tickets"
    assert "Uploaded tickets.csv" in loud.stderr
    assert bertune(environment, "delete", "tickets", "--yes", "-q").stdout == ""


def test_a_reader_that_stops_reading_ends_the_command_without_a_word(
    environment: Environment, spec: Path
) -> None:
    answer(environment, "submit", spec)
    for arguments in ("studies", "studies --json", "trials tickets -q", "--help"):
        command = f"{sys.executable} -m service.cli {arguments} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.stderr == "", arguments
        assert done.stdout == ("1\n" if arguments == "--help" else "141\n")  # typer's, ours


def test_colours_are_left_out_where_nobody_wants_them(environment: Environment, spec: Path) -> None:
    answer(environment, "submit", spec)
    forced = {**environment, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[2mqueued" in bertune(forced, "studies").stdout
    assert "\x1b[3" not in bertune({**forced, "NO_COLOR": "1"}, "studies").stdout
    assert "\x1b" not in bertune(environment, "studies").stdout
    assert "\x1b" not in bertune(forced, "studies", "--json").stdout


def test_a_matrix_is_folded_to_as_many_classes_as_wanted_and_saved_whole(
    environment: Environment, fake_worker: None, spec: Path, tmp_path: Path
) -> None:
    labels = [f"intent_{i:02}" for i in range(30)]
    lines = [f"text {i} about {labels[i % 30]},{labels[i % 30]}" for i in range(300)]
    (spec.parent / "data" / "tickets.csv").write_text("\n".join(["text,label", *lines]))
    text = SPEC.replace("test: data/test.csv, ", "").replace("n_trials: 3", "n_trials: 1")
    spec.write_text(text)
    bertune(environment, "submit", spec, "--watch")
    fitted = bertune({**environment, "COLUMNS": "80", "FORCE_COLOR": "1"}, "confusion", "tickets")
    assert "+ 18 more classes" in fitted.stdout
    two = bertune(environment, "confusion", "tickets", "--classes", 2).stdout
    assert "+ 28 more classes" in two
    whole = bertune(environment, "confusion", "tickets", "--all").stdout
    assert "more classes" not in whole
    assert all(f"{i} {label}" in whole or label in whole for i, label in enumerate(labels, 1))
    bertune(environment, "confusion", "tickets", "--all", "--classes", 2, code=2)

    svg, table = tmp_path / "matrix.svg", tmp_path / "new" / "matrix.csv"
    assert str(svg) in bertune(environment, "confusion", "tickets", "--save", svg).stderr
    bertune(environment, "confusion", "tickets", "--save", table, "-q")
    assert svg.read_text().startswith("<svg")
    assert len(table.read_text().splitlines()) == 31
    again = bertune(environment, "confusion", "tickets", "--save", svg, code=2)
    assert "exists already" in again.stderr
    odd = bertune(environment, "confusion", "tickets", "--save", tmp_path / "matrix.doc", code=2)
    assert ".csv, .svg, .json" in odd.stderr


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
    assert "No study has the id or name 'absent'. 'bertune studies' lists" in absent.stderr
    no_key = bertune({**environment, "BERTUNE_KEY": "wrong"}, "studies", code=1)
    assert "BERTUNE_KEY" in no_key.stderr
    spec.write_text(SPEC.replace("low: 1e-4", "low: 1"))
    inverted = bertune(environment, "submit", spec, code=1)
    assert "inverted_range" in inverted.stderr
    assert "search_space.learning_rate" in inverted.stderr


def test_a_name_that_is_not_there_is_answered_with_what_was_near(
    environment: Environment, spec: Path
) -> None:
    study = answer(environment, "submit", spec)
    for command in ("show", "watch", "trials", "confusion", "best", "pause", "resume", "cancel"):
        wrong = bertune(environment, command, "tikcets", code=1)
        assert "Did you mean 'tickets'? 'bertune studies' lists them." in wrong.stderr
        assert wrong.stdout == ""
    begun = bertune(environment, "show", study["id"][:6], code=1)
    assert f"Did you mean '{study['id']}'?" in begun.stderr
    number = bertune(environment, "show", "tickets", 9, code=1)
    assert "no trial 9; it has 0 to 2. 'bertune trials" in number.stderr
    data = bertune(environment, "dataset", "show", "help-desk", code=1)
    assert "Did you mean 'help desk'? 'bertune dataset list' lists them." in data.stderr
    assert answer(environment, "dataset", "show", "help desk")["name"] == "help desk"
    assert "Did you mean 'studies'?" in bertune(environment, "studis", code=2).stderr


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
    assert f"Schema {head_revision()} " in bertune(home, "db", "upgrade").stdout
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
    assert "database does not answer" in bertune(home, "keys", "list", code=3).stderr
    doctor = json.loads(bertune(home, "doctor", "--json", code=1).stdout)
    assert {finding["level"] for finding in doctor if "database" in finding["subject"]} == {"fail"}


def test_doctor_looks_at_everything_and_says_what_to_do(
    environment: Environment, cli_home: Path
) -> None:
    home = {**environment, "BERTUNE_HOME": str(cli_home)}
    findings = answer(home, "doctor")
    levels = {finding["subject"]: finding["level"] for finding in findings}
    assert [*levels][:2] == ["python", "torch"]
    assert {"gpu", "disk", "workers"} < levels.keys()
    assert {levels[well] for well in ("python", "sqlite database", "server", "key")} == {"ok"}
    assert all(finding["advice"] for finding in findings if finding["level"] != "ok")

    refused = bertune({**home, "BERTUNE_KEY": "wrong"}, "doctor", "--quiet", code=1)
    assert "fail key: " in refused.stdout
    assert "bertune keys create" in refused.stdout
    assert "python" not in refused.stdout  # quiet: it is well
    assert refused.stderr == ""


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
    with Api(url, key) as client:
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


def test_a_login_link_lets_one_browser_in_once(environment: Environment) -> None:
    link = bertune(environment, "keys", "login-link", "--quiet").stdout.strip()
    with httpx.Client(trust_env=False, follow_redirects=True) as browser:
        assert browser.get(link).url.path.startswith("/dashboard")
    with httpx.Client(trust_env=False) as late:
        assert late.get(link).status_code == 401


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
