"""`bertune apply`: files become schedules, wholly or not at all, and once only."""

from pathlib import Path
from typing import Any

import pytest
from command_line import Environment, answer, bertune, bertune_asked, clean_environment, nowhere
from real_parts import tickets

TWO = """
# Both read the same file.
name: nightly
cron: 30 2 * * *
data: {train: tickets.csv}
study: {budget: {n_trials: 1}, training: {learning_rate: 5e-5}}
---
name: once
at: 2091-05-02T08:00:00
timezone: America/New_York
data: {train: tickets.csv}
study: {}
warm_start: previous
---
"""
NOTHING: dict[str, Any] = {"added": [], "changed": [], "removed": []}


@pytest.fixture(scope="module", autouse=True)
def data(data_root: Path) -> None:
    """What the schedules read."""
    tickets(data_root)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "schedules"
    (folder / "team").mkdir(parents=True)
    (folder / "two.yaml").write_text(TWO)
    hourly = "name: hourly\nevery_s: 3600\ndata: {train: tickets.csv}\nstudy: {}\n"
    (folder / "team" / "hourly.yml").write_text(hourly)
    (folder / ".hidden.yaml").write_text("no: schedule\n")
    return folder


def names(environment: Environment) -> list[str]:
    return [schedule["spec"]["name"] for schedule in answer(environment, "schedule", "list")]


def test_files_become_schedules_and_a_second_run_finds_nothing_to_do(
    environment: Environment, folder: Path
) -> None:
    looked = bertune(environment, "apply", "-f", folder, "--dry-run").stdout
    assert "+ nightly: fires 30 2 * * *" in looked
    assert names(environment) == []
    done = bertune(environment, "apply", "-f", folder).stdout
    assert "Done: 3 added, 0 changed, 0 removed" in done
    assert names(environment) == ["hourly", "nightly", "once"]
    before = answer(environment, "schedule", "list")
    assert {schedule["spec"]["managed_by"] for schedule in before} == {"apply"}

    again = bertune(environment, "apply", "-f", folder, "--prune").stdout
    assert again == "Nothing to do: 3 schedules were as stated.\n"
    told = answer(environment, "apply", "-f", folder)
    assert told == {**NOTHING, "unchanged": ["hourly", "nightly", "once"]}
    assert answer(environment, "schedule", "list") == before


def test_what_differs_is_shown_field_by_field_and_changed(
    environment: Environment, folder: Path
) -> None:
    bertune(environment, "apply", "-f", folder)
    changed = TWO.replace("30 2", "0 4").replace("n_trials: 1}", "n_trials: 2, max_parallel: 2}")
    (folder / "two.yaml").write_text(changed.replace("warm_start: previous\n", ""))
    said = bertune(environment, "apply", "-f", folder).stdout
    for line in (
        "~ cron: 30 2 * * * → 0 4 * * *",
        "~ study.budget.n_trials: 1 → 2",
        "+ study.budget.max_parallel: 2",
        "- warm_start.source: previous",
        "Done: 0 added, 2 changed, 0 removed; 1 schedule was as stated.",
    ):
        assert line in said
    nightly = answer(environment, "schedule", "show", "nightly")["spec"]
    assert (nightly["cron"], nightly["study"]["budget"]["max_parallel"]) == ("0 4 * * *", 2)
    assert answer(environment, "schedule", "show", "once")["spec"]["warm_start"] is None


def test_a_schedule_that_was_paused_by_hand_stays_so_unless_its_file_says_more(
    environment: Environment, folder: Path
) -> None:
    bertune(environment, "apply", "-f", folder)
    bertune(environment, "schedule", "pause", "nightly")
    assert "Nothing to do" in bertune(environment, "apply", "-f", folder).stdout
    (folder / "two.yaml").write_text(TWO.replace("name: nightly", "name: nightly\nenabled: true"))
    said = bertune(environment, "apply", "-f", folder).stdout
    assert "~ enabled: false → true" in said
    assert answer(environment, "schedule", "show", "nightly")["enabled"] is True


def test_pruning_removes_only_what_the_same_owner_keeps(
    environment: Environment, folder: Path
) -> None:
    own = folder / "team" / "hourly.yml"
    by_hand = own.read_text().replace("hourly", "by-hand")
    theirs = own.read_text().replace("hourly", "theirs") + "managed_by: other team\n"
    for index, text in enumerate((by_hand, theirs)):
        path = folder.parent / f"{index}.yaml"
        path.write_text(text)
        bertune(environment, "schedule", "add", path)
    bertune(environment, "apply", "-f", folder)
    own.unlink()
    kept = bertune(environment, "apply", "-f", folder).stdout
    assert kept == "Nothing to do: 2 schedules were as stated.\n"

    unasked = bertune(environment, "apply", "-f", folder, "--prune", code=2)
    assert "- hourly" in unasked.stdout
    assert "--yes" in unasked.stderr
    code, said = bertune_asked(environment, "apply", "-f", folder, "--prune", reply="n")
    assert (code, "Nothing was changed." in said) == (1, True)
    assert "hourly" in names(environment)
    pruned = answer(environment, "apply", "-f", folder, "--prune", "--yes")
    assert pruned["removed"] == ["hourly"]
    assert names(environment) == ["by-hand", "nightly", "once", "theirs"]

    (folder / "two.yaml").unlink()
    none = bertune(environment, "apply", "-f", folder, "--prune", "--yes", code=2)
    assert "No schedule stands in" in none.stderr
    whole = ("apply", "-f", folder, "--prune", "--owner", "apply", "--yes")
    assert answer(environment, *whole)["removed"] == ["nightly", "once"]
    assert names(environment) == ["by-hand", "theirs"]


def test_every_problem_of_every_file_is_told_and_nothing_is_changed(
    environment: Environment, folder: Path
) -> None:
    theirs = folder.parent / "theirs.yaml"
    theirs.write_text(
        "name: theirs\nevery_s: 60\ndata: {train: tickets.csv}\nstudy: {}\nmanaged_by: x\n"
    )
    bertune(environment, "schedule", "add", theirs)
    (folder / "a.yaml").write_text("name: a\ncron: [\n")
    (folder / "b.yaml").write_text(
        "name: b\ncron: 1 2 3\ndata: {train: tickets.csv}\nstudy: {}\n---\n"
        "name: c\nevery_s: 5\nstudy:\n  dataset: absent\n---\njust a text\n---\n"
        "name: nightly\nevery_s: 60\nstudy: {}\n---\n"
        "name: d\nevery_s: 60\nstudy:\n  dataset: absent\n---\n"
        "name: theirs\nevery_s: 60\nstudy: {}\n"
    )
    said = bertune(environment, "apply", "-f", folder, code=2)
    places = [line.removeprefix(f"bertune: {folder}/") for line in said.stderr.splitlines()]
    for start in (
        "a.yaml:3: Not YAML: ",
        "b.yaml:7: every_s: Input should be greater than or equal to 60",
        "b.yaml:11: ",
        "two.yaml:3: name: 'nightly' stands in ",
        "b.yaml:22: name: 'theirs' is kept by 'x', not by 'apply'.",
        "b.yaml:2: cron: ",
        "b.yaml:20: study.dataset: ",
        "b.yaml:15: study.dataset: ",
    ):
        assert any(place.startswith(start) for place in places), (start, places)
    assert "8 problems; nothing was changed." in said.stderr
    assert said.stdout == ""
    assert names(environment) == ["theirs"]


def test_what_files_have_wrong_by_themselves_is_told_without_a_server(folder: Path) -> None:
    away = clean_environment(BERTUNE_SERVER=nowhere())
    bertune(away, "apply", "-f", folder, code=3)
    (folder / "two.yaml").write_text(TWO.replace("cron:", "crom:"))
    said = bertune(away, "apply", "-f", folder, code=2)
    assert f"{folder}/two.yaml:4: crom: there is no such field" in said.stderr
