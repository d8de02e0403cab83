"""Data sets of the hub: read from a hub on loopback by the hub's own libraries."""

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from api_server import ApiServer, serving
from fake_hub import TOKEN, FakeHub, fake_hub

from service.intake.hub import reading_environment
from service.intake.hub_job import HubJob
from service.store.database import Database

JOBS_SCRIPT = Path(__file__).parents[1] / "support" / "read_hub_jobs.py"
CARD = b"""---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': sad
          '1': glad
---
"""
TWO_CONFIGS = b"""---
configs:
- config_name: short
  data_files: [{split: train, path: short.csv}]
- config_name: long
  data_files: [{split: train, path: long.csv}]
---
"""
OUTSIDE = b"""---
configs:
- config_name: default
  data_files: [{split: train, path: FILE}]
---
"""
CSV = b"text,label\nfine day,x\nbad day,y\n"


def parquet(texts: list[str], labels: list[int]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": labels}), buffer)
    return buffer.getvalue()


def moods(rows: int, what: str = "mood", *, told: bool = True) -> bytes:
    labels = [row % 2 if told else -1 for row in range(rows)]
    return parquet([f"{what} number {row}" for row in range(rows)], labels)


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def api(
    database: Database, tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ApiServer]:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(database, tmp_path / "home") as server:
        yield server


def test_a_revision_is_frozen_and_its_classes_go_by_name(api: ApiServer, hub: FakeHub) -> None:
    files = {
        "README.md": CARD,
        "data/train.parquet": moods(40),
        "data/validation.parquet": moods(6, "whim"),
        "data/test.parquet": moods(4, "riddle", told=False),
    }
    older = hub.add("team/moods", files)
    newer = hub.add("team/moods", {**files, "data/train.parquet": moods(44)})
    answer = api.client.post("/v1/datasets", json={"hub": "team/moods"})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert dataset["name"] == "team/moods"
    assert dataset["rows"] == {"train": 44, "validation": 6}
    assert dataset["label_counts"]["validation"] == {"glad": 3, "sad": 3}
    assert dataset["origin"] == {
        "hub": "team/moods",
        "config": "default",
        "revision": "main",
        "commit": newer,
        "splits": {"train": "train", "validation": "validation"},
        "left_out": {"test": "no row has a label"},
    }
    assert api.get(f"/v1/datasets/{dataset['id']}") == dataset
    assert {path.split("/")[0] for path in api.stored_files()} == {"datasets"}

    body = {"hub": "team/moods", "revision": older, "name": "Moods"}
    before = api.client.post("/v1/datasets", json=body).json()
    assert before["rows"]["train"] == 40
    assert before["name"] == "Moods"
    assert before["origin"]["commit"] == before["origin"]["revision"] == older


def test_what_the_server_cannot_ask_a_hub_for_is_refused_before_it_does(
    api: ApiServer, hub: FakeHub
) -> None:
    asked = len(hub.asked)
    for body, where in (
        ({"hub": "a b"}, ["body", "hub"]),
        ({"name": "x"}, ["body", "hub"]),
        ({"hub": "team/moods", "split": "train"}, ["body", "split"]),
        ({"hub": "team/moods", "splits": {"trian": "a"}}, ["body", "splits", "trian"]),
        ({"hub": "team/moods", "options": {"label": 7}}, ["body", "options", "label"]),
        ({"hub": "team/moods", "options": {"format": "csv"}}, ["body", "options", "format"]),
        ({"hub": "team/moods", "options": {"quoting": "none"}}, ["body", "options", "quoting"]),
    ):
        answer = api.client.post("/v1/datasets", json=body)
        assert (answer.status_code, answer.json()["where"]) == (422, where), body
    assert len(hub.asked) == asked
    answer = api.client.post(
        "/v1/datasets", content=b"{", headers={"content-type": "application/json"}
    )
    assert answer.json()["error"] == "invalid_request"
    assert api.stored_rows()["dataset"] == 0
    assert api.stored_files() == set()


CASES: dict[str, dict[str, Any]] = {
    "unknown name": {"hub": "team/nothing"},
    "private": {"hub": "team/private"},
    "gated": {"hub": "team/gated"},
    "unknown revision": {"hub": "team/words", "revision": "v9"},
    "unknown config": {"hub": "team/configs", "config": "medium"},
    "no config named": {"hub": "team/configs"},
    "a config": {"hub": "team/configs", "config": "long"},
    "no such split": {"hub": "team/words", "splits": {"validation": "dev"}},
    "no train": {"hub": "team/untrained"},
    "another split as train": {"hub": "team/untrained", "splits": {"train": "test"}},
    "twice": {"hub": "team/words", "splits": {"train": "train", "test": "train"}},
    "code": {"hub": "team/coded"},
    "a file of the server": {"hub": "team/outside"},
    "pictures": {"hub": "team/pictures"},
    "too large": {"hub": "team/words", "max_bytes": 10},
    "broken": {"hub": "team/broken"},
    "lists": {"hub": "team/lists"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def answers(hub: FakeHub, folder: Path) -> dict[str, dict[str, Any]]:
    """All cases in one process: the hub's library takes its time to load."""
    secret = folder / "secret.csv"
    secret.write_bytes(CSV)
    hub.add("team/words", {"train.csv": CSV})
    hub.add("team/private", {"train.csv": CSV}, private=True)
    hub.add("team/gated", {"train.csv": CSV}, gated=True)
    hub.add("team/configs", {"README.md": TWO_CONFIGS, "short.csv": CSV, "long.csv": CSV * 2})
    hub.add("team/untrained", {"test.csv": CSV})
    hub.add("team/coded", {"coded.py": b"print('no')", "train.csv": CSV})
    card = OUTSIDE.replace(b"FILE", str(secret).encode())
    hub.add("team/outside", {"README.md": card, "train.csv": CSV})
    hub.add("team/pictures", {"train/cat/1.png": b"\x89PNG"})
    hub.add("team/broken", {"train.parquet": b"no parquet"})
    hub.add("team/lists", {"train.parquet": lists()})
    return run_jobs(CASES, folder, hub)


def lists() -> bytes:
    """Tags as the hub has them: numbers, and their names in the file's own metadata."""
    tags = {"feature": {"names": ["O", "B-city"], "_type": "ClassLabel"}, "_type": "List"}
    words = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    facts = {"info": {"features": {"tokens": words, "tags": tags}}}
    table = pa.table({"tokens": [["in", "Rome"], [], ["no"]], "tags": [[0, 1], [], [0]]})
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(facts)}), buffer)
    return buffer.getvalue()


def run_jobs(
    cases: dict[str, dict[str, Any]], folder: Path, hub: FakeHub, *flags: str, **environment: str
) -> dict[str, dict[str, Any]]:
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    base = HubJob(
        hub="",
        config=None,
        revision="main",
        splits={},
        label=None,
        folder="",
        max_bytes=1 << 20,
        keep_free_bytes=0,
    )
    jobs = [
        {**dataclasses.asdict(base), "folder": str(folder / name), **case}
        for name, case in cases.items()
    ]
    variables = reading_environment(folder)
    variables.pop("HF_TOKEN", None)
    done = subprocess.run(
        [sys.executable, str(JOBS_SCRIPT), *flags],
        input="\n".join(map(json.dumps, jobs)),
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **variables,
            "HF_ENDPOINT": hub.url,
            "EMPTY_FOLDER": str(empty),
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(
    ("case", "code", "where", "said"),
    [
        ("unknown name", "unknown_hub_dataset", ["hub"], "team/nothing"),
        ("private", "unknown_hub_dataset", ["hub"], "HF_TOKEN"),
        ("gated", "hub_denied", ["hub"], "HF_TOKEN"),
        ("unknown revision", "unknown_revision", ["revision"], "'v9'"),
        ("unknown config", "unknown_config", ["config"], "short, long"),
        ("no config named", "unknown_config", ["config"], "short, long"),
        ("no such split", "missing_split", ["splits", "validation"], "it has train"),
        ("no train", "missing_split", ["splits", "train"], "test"),
        ("twice", "invalid_value", ["splits", "train"], "one split only"),
        ("code", "hub_unreadable", ["hub"], "code of its own"),
        ("a file of the server", "hub_unreadable", ["hub"], "team/outside"),
        ("pictures", "hub_unreadable", ["hub"], "imagefolder"),
        ("too large", "too_large", [], "BERTUNE_MAX_UPLOAD_BYTES"),
        ("broken", "hub_unreadable", ["hub"], "team/broken"),
    ],
)
def test_what_the_hub_does_not_give_is_told_by_name(
    answers: dict[str, dict[str, Any]], case: str, code: str, where: list[str], said: str
) -> None:
    answer = answers[case]
    assert (answer["code"], answer["where"]) == (code, where), answer
    assert said in answer["detail"]


def test_a_config_and_a_split_of_another_name_are_read(
    answers: dict[str, dict[str, Any]], folder: Path
) -> None:
    assert answers["a config"]["origin"]["config"] == "long"
    assert pq.read_table(folder / "a config" / "train.parquet").num_rows == 5
    other = answers["another split as train"]["origin"]
    assert other["splits"] == {"train": "test"}
    assert pq.read_table(folder / "another split as train" / "train.parquet").num_rows == 2


def test_tags_in_lists_go_by_name(answers: dict[str, dict[str, Any]], folder: Path) -> None:
    assert answers["lists"]["code"] is None, answers["lists"]
    tags = pq.read_table(folder / "lists" / "train.parquet")["tags"].to_pylist()
    assert tags == [["O", "B-city"], [], ["O"]]


def test_a_token_opens_what_is_private_or_gated(hub: FakeHub, tmp_path: Path) -> None:
    cases = {"private": {"hub": "team/private"}, "gated": {"hub": "team/gated"}}
    hub.add("team/private", {"train.csv": CSV}, private=True)
    hub.add("team/gated", {"train.csv": CSV}, gated=True)
    found = run_jobs(cases, tmp_path, hub, HF_TOKEN=TOKEN)
    assert [answer["code"] for answer in found.values()] == [None, None], found


def test_a_hub_out_of_reach_and_a_missing_extra_are_told_apart(
    hub: FakeHub, tmp_path: Path
) -> None:
    case = {"words": {"hub": "team/words"}}
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:1"}
    away = run_jobs(case, tmp_path, hub, **nobody)["words"]
    assert (away["code"], away["where"]) == ("hub_unavailable", ["hub"]), away
    without = run_jobs({"again": case["words"]}, tmp_path, hub, "--without-datasets")["again"]
    assert without["code"] == "hub_not_installed"
    assert "pip install 'bertune[hub]'" in without["detail"]
