"""Data sets of the hub at the command line: read once by `dataset add`, anew at each fire of a
schedule. The server is real and in this process, the hub answers on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Environment, answer, bertune, clean_environment
from fake_hub import FakeHub, fake_hub
from live_server import live_server

from service.store.database import Database

STUDY = """
name: moods-{date}
dataset: {hub: team/moods, options: {label: mood}}
budget: {n_trials: 1}
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The one that the server asks."""
    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.fixture
def environment(hub: FakeHub, tmp_path: Path) -> Iterator[Environment]:
    database = Database(f"sqlite:///{tmp_path / 'bertune.db'}")
    with live_server(database, tmp_path / "home") as server:
        key = server.headers["Authorization"].removeprefix("Bearer ")
        yield clean_environment(BERTUNE_SERVER=server.url, BERTUNE_KEY=key)
    database.dispose()


def moods(rows: int) -> dict[str, bytes]:
    lines = (f"mood number {row},{('sad', 'glad')[row % 2]}\n" for row in range(rows))
    return {"train.csv": ("text,mood\n" + "".join(lines)).encode()}


def test_a_data_set_of_the_hub_is_added_by_its_name_and_revision(
    environment: Environment, hub: FakeHub
) -> None:
    older = hub.add("team/moods", moods(40))
    hub.add("team/moods", moods(44))
    add = ("dataset", "add", "--hub", "team/moods", "--option", "label=mood")
    newest = answer(environment, *add)
    assert newest["rows"]["train"] == 44
    first = answer(environment, *add, "--revision", older, "--name", "Moods")
    assert (first["name"], first["origin"]["commit"]) == ("Moods", older)
    assert "team/moods" in bertune(environment, "dataset", "list").stdout
    unknown = bertune(environment, "dataset", "add", "--hub", "team/none", code=1)
    assert "[unknown_hub_dataset]" in unknown.stderr
    both = bertune(environment, "dataset", "add", "--revision", "main", code=2)
    assert "--hub" in both.stderr


def test_a_schedule_of_a_study_reads_the_hub_anew_at_each_fire(
    environment: Environment, hub: FakeHub, tmp_path: Path
) -> None:
    older = hub.add("team/moods", moods(40))
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    add = ("schedule", "add", "--study", study, "--name", "moods", "--cron", "30 2 * * *")
    saved = answer(environment, *add)
    assert saved["spec"]["data"]["hub"] == "team/moods"
    assert "dataset" not in saved["spec"]["study"]
    commits = []
    for rows in (40, 44):
        hub.add("team/moods", moods(rows))
        fired = answer(environment, "schedule", "run", "moods")
        dataset_id = answer(environment, "show", fired["study_id"])["dataset"]
        origin = answer(environment, "dataset", "show", dataset_id)["origin"]
        commits.append(origin["commit"])
        bertune(environment, "cancel", fired["study_id"])
    assert commits[0] == older
    assert commits[1] not in (older, None)
