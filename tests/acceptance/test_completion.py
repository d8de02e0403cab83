"""What the shell completes, by the protocol in which bash asks; and studies as files."""

import csv
import json
from pathlib import Path

import pytest
from command_line import Environment, answer, bertune, clean_environment, nowhere
from real_parts import tickets

SPEC = "name: tickets\ndataset: {train: tickets.csv, test: held-out/tickets.csv}\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    tickets(tmp_path)
    tickets(tmp_path / "held-out", first_text="well", rows=30)
    path = tmp_path / "spec.yaml"
    path.write_text(f"{SPEC}budget: {{n_trials: 2}}\ntraining: {{epochs: 2}}\n")
    return path


def completed(environment: Environment, line: str) -> list[str]:
    """What bash is offered after ``line``, whose last word is not yet whole."""
    asked = {"_BERTUNE_COMPLETE": "complete_bash", "COMP_WORDS": line}
    words = {**environment, **asked, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    said = bertune(words)
    assert said.stderr == ""
    return said.stdout.split("\n")[:-1] if said.stdout.strip() else []


def test_names_of_studies_schedules_and_data_sets_are_completed(
    environment: Environment, spec: Path
) -> None:
    bertune(environment, "submit", spec)
    bertune(environment, "submit", spec, "--name", "other")
    bertune(environment, "schedule", "add", "--study", spec, "--every", 3600, "--name", "hourly")
    assert completed(environment, "bertune show ti") == ["tickets"]
    assert completed(environment, "bertune cancel ") == ["other", "tickets"]
    assert completed(environment, "bertune schedule pause h") == ["hourly"]
    assert completed(environment, "bertune dataset show ti") == ["tickets"]
    assert completed(environment, "bertune show x") == []
    assert completed(environment, "bertune ex") == ["extend", "export"]
    elsewhere = {**environment, "BERTUNE_SERVER": nowhere()}
    server = environment["BERTUNE_SERVER"]
    assert completed(elsewhere, f"bertune show --server {server} o") == ["other"]


def test_completion_says_nothing_where_no_server_answers_or_none_may_be_asked(
    environment: Environment,
) -> None:
    for own in (
        clean_environment(BERTUNE_SERVER=nowhere()),
        clean_environment(BERTUNE_SERVER="no address"),
        {**environment, "BERTUNE_KEY": "wrong"},
    ):
        assert completed(own, "bertune show ti") == []


def test_a_study_is_exported_as_files_whole_or_not_at_all(
    environment: Environment, fake_worker: None, spec: Path, tmp_path: Path
) -> None:
    study = answer(environment, "submit", spec, "--watch")
    folder = tmp_path / "deep" / "tickets"
    told = answer(environment, "export", "tickets", folder)
    best = study["best"]["number"]
    matrices = ["confusion/validation-0.csv", "confusion/validation-1.csv"]
    test = f"confusion/test-{best}.csv"
    assert told["files"] == sorted(
        [*matrices, test, "model", "study.json", "trials.csv", "trials.json"]
    )
    assert all((folder / name).exists() for name in told["files"])
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    trials = answer(environment, "trials", "tickets")
    assert json.loads((folder / "trials.json").read_text()) == trials
    assert [float(row["params_learning_rate"]) for row in rows] == [
        trial["params"]["learning_rate"] for trial in trials
    ]
    assert json.loads((folder / "study.json").read_text())["id"] == study["id"]

    again = bertune(environment, "export", "tickets", folder, code=2)
    assert "exists already" in again.stderr
    light = tmp_path / "light"
    said = bertune(environment, "export", "tickets", light, "--no-model", "-q").stdout
    assert said == f"{light}\n"
    assert not (light / "model").exists()
    bertune(environment, "export", "absent", tmp_path / "deep" / "absent", code=1)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tickets"]
