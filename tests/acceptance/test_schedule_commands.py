"""Schedules at the command line: looked at before they are saved, changed, fired and removed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import Environment, answer, bertune, bertune_asked, clean_environment, nowhere
from real_parts import tickets, until

NIGHTLY = """
name: nightly
cron: 30 2 * * *
timezone: Europe/Berlin
data: {train: tickets.csv}
study:
  budget: {n_trials: 1}
"""


@pytest.fixture(scope="module", autouse=True)
def data(data_root: Path) -> None:
    """What the schedules read."""
    tickets(data_root)


@pytest.fixture
def nightly(tmp_path: Path) -> Path:
    path = tmp_path / "nightly.yaml"
    path.write_text(NIGHTLY)
    return path


@pytest.fixture
def saved(environment: Environment, nightly: Path) -> dict[str, Any]:
    schedule: dict[str, Any] = answer(environment, "schedule", "add", nightly)
    return schedule


def test_a_schedule_shows_its_next_five_fires_before_it_is_saved(
    environment: Environment, nightly: Path
) -> None:
    looked = bertune(environment, "schedule", "add", nightly, "--dry-run").stdout
    assert looked.count(" 02:30 CE") == 5
    assert answer(environment, "schedule", "list") == []
    check = answer(environment, "schedule", "add", nightly, "--dry-run")
    assert len(check["upcoming"]) == 5

    said = bertune(environment, "schedule", "add", nightly).stdout
    assert said.count(" 02:30 CE") == 5
    shown = answer(environment, "schedule", "show", "nightly")
    assert f"Schedule nightly ({shown['id']}) is saved." in said
    assert shown["upcoming"] == check["upcoming"]
    assert "[name_taken]" in bertune(environment, "schedule", "add", nightly, code=1).stderr


def test_saving_asks_a_person_first(environment: Environment, nightly: Path) -> None:
    code, said = bertune_asked(environment, "schedule", "add", nightly, reply="n")
    assert (code, "Nothing was saved." in said, said.count(" 02:30 CE")) == (1, True, 5)
    assert answer(environment, "schedule", "list") == []
    code, said = bertune_asked(environment, "schedule", "add", nightly, reply="y")
    assert (code, "is saved." in said) == (0, True)


def test_a_study_file_becomes_a_schedule_with_its_data_uploaded(
    environment: Environment, tmp_path: Path
) -> None:
    tickets(tmp_path)
    study = tmp_path / "study.yaml"
    study.write_text("name: t-{date}\ndataset: tickets.csv\n")
    add = ("schedule", "add", "--study", study)
    schedule = answer(environment, *add, "--name", "hourly", "--every", 3600)
    assert (schedule["spec"]["name"], schedule["spec"]["every_s"]) == ("hourly", 3600)
    dataset = answer(environment, "dataset", "show", schedule["spec"]["study"]["dataset"])
    assert dataset["name"] == "tickets"
    assert "[invalid_timing]" in bertune(environment, *add, "--name", "never", code=1).stderr


def test_what_is_wrong_with_a_file_is_told_by_its_line_before_anything_is_sent(
    nightly: Path,
) -> None:
    nightly.write_text(NIGHTLY.replace("cron:", "crom:").replace("n_trials: 1", "n_trials: 1]"))
    away = clean_environment(BERTUNE_SERVER=nowhere())
    broken = bertune(away, "schedule", "add", nightly, code=2)
    assert f"{nightly}:7: Not YAML" in broken.stderr
    nightly.write_text(NIGHTLY.replace("cron:", "crom:") + "name: again\n")
    assert f"{nightly}:8: Not YAML: name stands here and in line 2" in (
        bertune(away, "schedule", "add", nightly, code=2).stderr
    )
    nightly.write_text(NIGHTLY.replace("cron:", "crom:"))
    unknown = bertune(away, "schedule", "add", nightly, code=2)
    assert f"{nightly}:3: crom: there is no such field" in unknown.stderr
    nightly.write_text(f"{NIGHTLY}---{NIGHTLY}")
    assert "stands in" in bertune(away, "schedule", "add", nightly, code=2).stderr
    assert bertune(away, "schedule", "add", code=2).stdout == ""


def test_schedules_are_listed_paused_and_resumed(
    environment: Environment, saved: dict[str, Any]
) -> None:
    listed = bertune(environment, "schedule", "list").stdout
    assert "30 2 * * *  (Europe/Berlin)" in listed
    assert bertune(environment, "schedule", "list", "-q").stdout == "nightly\n"
    paused = bertune(environment, "schedule", "pause", "nightly").stdout
    assert f"'bertune schedule resume {saved['id']}'" in paused
    assert bertune(environment, "schedule", "show", "nightly", "-q").stdout == ""
    assert "paused" in bertune(environment, "schedule", "show", "nightly").stdout
    resumed = bertune(environment, "schedule", "resume", saved["id"]).stdout
    assert "nightly fires next: " in resumed
    fire = bertune(environment, "schedule", "show", "nightly", "-q").stdout.strip()
    assert fire == saved["next_fire_time"]


def test_an_edit_shows_each_field_that_changes_and_the_new_fires(
    environment: Environment, saved: dict[str, Any]
) -> None:
    change = ("--set", "cron=*/5 * * * *", "--set", "study.budget.n_trials=3")
    looked = bertune(environment, "schedule", "edit", "nightly", *change, "--dry-run").stdout
    assert "~ cron: 30 2 * * * → */5 * * * *" in looked
    assert "~ study.budget.n_trials: 1 → 3" in looked
    assert answer(environment, "schedule", "show", "nightly")["spec"] == saved["spec"]

    changed = answer(environment, "schedule", "edit", "nightly", *change)
    assert changed["spec"]["cron"] == "*/5 * * * *"
    assert changed["spec"]["study"] == {"budget": {"n_trials": 3}}
    again = bertune(environment, "schedule", "edit", "nightly", *change).stdout
    assert "nothing to do" in again
    hourly = answer(environment, "schedule", "edit", "nightly", "--set", "every_s=3600")
    assert (hourly["spec"]["cron"], hourly["spec"]["every_s"]) == (None, 3600)
    plain = answer(environment, "schedule", "edit", "nightly", "--set", "timezone=null")
    assert plain["spec"]["timezone"] == "UTC"

    wrong = bertune(environment, "schedule", "edit", "nightly", "--set", "overlap=maybe", code=2)
    assert "overlap" in wrong.stderr
    refused = bertune(environment, "schedule", "edit", "nightly", "--set", "cron=1 2", code=1)
    assert "[invalid_cron]" in refused.stderr
    bertune(environment, "schedule", "edit", "nightly", code=2)
    bertune(environment, "schedule", "edit", "nightly", "--set", "cron", code=2)


def test_a_schedule_is_edited_whole_in_an_editor_until_it_is_right(
    environment: Environment, saved: dict[str, Any], tmp_path: Path
) -> None:
    editor = tmp_path / "editor"
    # The first time it writes a field that does not exist, the second time it mends that.
    editor.write_text('#!/bin/sh\ngrep -q crom "$1" && sed -i s/crom/cron/ "$1" && exit\n'
                      'sed -i "s/^cron.*/crom: 0 4 * * */" "$1"\n')  # fmt: skip
    editor.chmod(0o755)
    own = {**environment, "EDITOR": str(editor)}
    code, said = bertune_asked(own, "schedule", "edit", "nightly", reply="y\ny")
    assert code == 0, said
    assert "crom: there is no such field" in said
    assert "~ cron: 30 2 * * * → 0 4 * * *" in said
    assert answer(environment, "schedule", "show", "nightly")["spec"]["cron"] == "0 4 * * *"
    failed = {**environment, "EDITOR": "false"}
    code, said = bertune_asked(failed, "schedule", "edit", "nightly", reply="")
    assert (code, "nothing was changed" in said) == (1, True)


def test_a_schedule_fires_by_hand_and_its_history_says_what_came_of_it(
    environment: Environment, saved: dict[str, Any]
) -> None:
    assert "has not fired yet" in bertune(environment, "schedule", "runs", "nightly").stdout
    study = bertune(environment, "schedule", "run", "nightly", "-q").stdout.strip()
    assert answer(environment, "show", study)["labels"] == {"schedule": "nightly"}
    skipped = bertune(environment, "schedule", "run", "nightly", code=1)
    assert "skipped: overlap" in skipped.stdout
    runs = answer(environment, "schedule", "runs", "nightly")
    assert [(run["outcome"], run["reason"]) for run in runs] == [
        ("skipped", "overlap"),
        ("submitted", None),
    ]
    assert bertune(environment, "schedule", "runs", "nightly", "-q").stdout == f"{study}\n"
    assert "by hand" in bertune(environment, "schedule", "runs", "nightly").stdout
    assert "skipped: overlap" in bertune(environment, "schedule", "list").stdout


def test_a_moment_passes_and_the_schedule_says_never_again(
    environment: Environment, tmp_path: Path
) -> None:
    at = datetime.now(UTC) + timedelta(seconds=3)
    path = tmp_path / "once.yaml"
    path.write_text(f"name: once\nat: {at.isoformat()}\ndata: {{train: tickets.csv}}\nstudy: {{}}")
    answer(environment, "schedule", "add", path)
    until(lambda: answer(environment, "schedule", "runs", "once"))
    assert "never again" in bertune(environment, "schedule", "show", "once").stdout


def test_removing_wants_a_yes_and_leaves_the_studies(
    environment: Environment, saved: dict[str, Any]
) -> None:
    run = answer(environment, "schedule", "run", "nightly")
    assert "--yes" in bertune(environment, "schedule", "remove", "nightly", code=2).stderr
    code, said = bertune_asked(environment, "schedule", "remove", "nightly", reply="n")
    assert (code, "Nothing was removed." in said) == (1, True)
    assert answer(environment, "schedule", "remove", "nightly", "--yes")["id"] == saved["id"]
    assert answer(environment, "schedule", "list") == []
    assert answer(environment, "show", run["study_id"])["id"] == run["study_id"]


def test_a_schedule_that_is_not_there_is_answered_with_what_was_near(
    environment: Environment, saved: dict[str, Any]
) -> None:
    for command in ("show", "pause", "resume", "run", "runs"):
        wrong = bertune(environment, "schedule", command, "nightl", code=1)
        assert "Did you mean 'nightly'? 'bertune schedule list' lists them." in wrong.stderr
