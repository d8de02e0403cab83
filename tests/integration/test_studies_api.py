"""Studies over HTTP: submission, idempotency, validation, lists, cancel."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_server import TICKETS, ApiServer, serving
from sqlalchemy import event, select, update

from model.splits import read_rows
from service.routes.studies import read_studies
from service.store.artifacts import put_artifact
from service.store.database import Database
from service.store.tables import DatasetFile, Event, Result, Study, Trial
from studies.resolution import trial_seed
from studies.spec import StudySpec


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path / "home") as server:
        yield server


def trials_of(api: ApiServer, study_id: str) -> list[Trial]:
    with api.context.database.reading() as session:
        query = select(Trial).where(Trial.study_id == study_id).order_by(Trial.number)
        return list(session.scalars(query))


def end_trial(
    api: ApiServer, study_id: str, number: int, state: str, value: float | None, seconds: float = 4
) -> str:
    """Write an ended trial, as the queue would."""
    started = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    with api.context.database.transaction() as session:
        query = select(Trial).where(Trial.study_id == study_id, Trial.number == number)
        trial = session.scalars(query).one()
        trial.state, trial.value, trial.params = state, value, {"batch_size": 16 + number}
        trial.started_at, trial.finished_at = started, started + timedelta(seconds=seconds)
        if value is not None:
            for split in ("validation", "test"):
                metric = Result(trial_id=trial.id, split=split, metric="macro_f1", value=value)
                session.add(metric)
        return trial.id


def test_name_and_dataset_alone_make_a_study_with_every_default(api: ApiServer) -> None:
    dataset = api.upload()
    study = api.submit(dataset=dataset)
    assert study["state"] == "queued"
    assert study["trials"] == {
        "queued": 20, "running": 0, "completed": 0, "pruned": 0, "failed": 0, "cancelled": 0
    }  # fmt: skip
    assert study["best"] is None
    assert study["test"] is None
    assert study["error"] is None
    assert study["progress"] == {"done": 0, "total": 20, "share": 0, "eta_s": None}
    assert study["objective"] == {"metric": "macro_f1", "direction": "maximize"}
    assert (study["dataset"], study["model"]) == (dataset, "scratch:tiny")
    assert (study["started_at"], study["finished_at"]) == (None, None)
    assert study["created_at"].endswith("Z")
    assert StudySpec.model_validate(study["spec"]) == StudySpec(name="tickets", dataset=dataset)
    assert api.get(f"/v1/studies/{study['id']}") == study


def test_every_trial_is_queued_with_its_number_and_its_own_seed(api: ApiServer) -> None:
    study = api.submit(dataset=api.upload(), seed=7, budget={"n_trials": 5})
    trials = trials_of(api, study["id"])
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert [trial.seed for trial in trials] == [trial_seed(7, number) for number in range(5)]
    assert {(t.state, t.kind, t.attempt, t.params, t.told) for t in trials} == {
        ("queued", "train", 0, None, False)
    }
    with api.context.database.reading() as session:
        assert session.scalars(select(Event.type)).all() == ["study.submitted"]


def test_the_model_and_the_split_are_frozen_at_submission(api: ApiServer) -> None:
    dataset = api.upload(options='{"validation_fraction": 0.2, "test_fraction": 0.1}')
    study = api.submit(dataset=dataset, seed=3)
    with api.context.database.reading() as session:
        facts = session.get_one(Study, study["id"]).model_facts
        file = session.get_one(DatasetFile, (dataset, "indices-3"))
    assert facts["kind"] == "scratch"
    assert facts["key"] == "scratch:tiny"
    assert facts["max_positions"] == 512
    rows = read_rows(api.context.folders.dataset(dataset) / "indices-3.parquet")
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (42, 12, 6)
    served = api.client.get(f"/v1/datasets/{dataset}/files/indices-3")
    assert served.headers["etag"] == f'"{file.sha256}"'
    assert len(served.content) == file.bytes


def test_a_data_set_with_its_own_validation_file_needs_no_indices(api: ApiServer) -> None:
    files = {"train": ("t.csv", TICKETS), "validation": ("v.csv", "text,label\nhi,bill\n")}
    dataset = api.client.post("/v1/datasets", files=files).json()["id"]
    api.submit(dataset=dataset)
    assert not any("indices" in name for name in api.stored_files())


def test_the_same_idempotency_key_gives_the_same_study_and_another_body_a_conflict(
    api: ApiServer,
) -> None:
    spec = {"name": "tickets", "dataset": api.upload(), "seed": 0}
    headers = {"Idempotency-Key": "run-1"}
    first = api.client.post("/v1/studies", json=spec, headers=headers)
    again = api.client.post("/v1/studies", json=spec, headers=headers)
    stated = api.client.post("/v1/studies", json=spec | {"priority": 0}, headers=headers)
    other = api.client.post("/v1/studies", json=spec | {"seed": 1}, headers=headers)
    assert (first.status_code, again.status_code, stated.status_code) == (201, 201, 201)
    assert first.json()["id"] == again.json()["id"] == stated.json()["id"]
    assert other.status_code == 409
    assert other.json()["error"] == "idempotency_conflict"
    assert api.stored_rows()["study"] == 1
    assert api.stored_rows()["trial"] == 20


def test_a_study_that_an_earlier_version_stored_is_known_by_its_key(api: ApiServer) -> None:
    spec = {"name": "tickets", "dataset": api.upload()}
    headers = {"Idempotency-Key": "run-1"}
    study = api.client.post("/v1/studies", json=spec, headers=headers).json()
    with api.context.database.transaction() as session:  # whose specs had fewer fields
        stored = session.get_one(Study, study["id"])
        stored.spec = {name: stored.spec[name] for name in stored.spec if name != "checkpoint"}
    again = api.client.post("/v1/studies", json=spec, headers=headers)
    assert (again.status_code, again.json()["id"]) == (201, study["id"])


def test_submissions_with_one_key_at_once_make_one_study(api: ApiServer) -> None:
    spec = {"name": "tickets", "dataset": api.upload(), "budget": {"n_trials": 3}}
    start = threading.Barrier(8)

    def submit(_: int) -> tuple[int, str]:
        start.wait(10)
        answer = api.client.post("/v1/studies", json=spec, headers={"Idempotency-Key": "same"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(submit, range(8)))
    assert len(answers) == 1
    assert answers.pop()[0] == 201
    assert api.stored_rows()["study"] == 1
    assert api.stored_rows()["trial"] == 3


def test_submissions_without_a_key_at_once_all_make_their_own_study(api: ApiServer) -> None:
    spec = {"name": "tickets", "dataset": api.upload(), "budget": {"n_trials": 2}}
    start = threading.Barrier(6)

    def submit(_: int) -> str:
        start.wait(10)
        answer = api.client.post("/v1/studies", json=spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(submit, range(6)))) == 6
    assert api.stored_rows()["dataset_file"] == 2  # train and indices-0


def test_the_best_trial_follows_the_direction_and_ties_go_to_the_lower_number(
    api: ApiServer,
) -> None:
    dataset = api.upload()
    up = api.submit(dataset=dataset, budget={"n_trials": 5})["id"]
    down = api.submit(dataset=dataset, objective={"metric": "loss"}, budget={"n_trials": 5})["id"]
    for study in (up, down):
        for number, value in enumerate((0.5, 0.9, 0.9, 0.1)):
            end_trial(api, study, number, "completed", value)
        end_trial(api, study, 4, "pruned", None)
    best = api.get(f"/v1/studies/{up}")["best"]
    assert best == {
        "number": 1,
        "value": 0.9,
        "params": {"batch_size": 17},
        "metrics": {"macro_f1": 0.9},
    }
    assert api.get(f"/v1/studies/{down}")["best"]["number"] == 3
    by_id = {item["id"]: item for item in api.get("/v1/studies")["items"]}
    assert by_id[up]["best"] == best
    assert by_id[down]["best"]["number"] == 3


def test_the_test_score_is_the_best_trials_with_how_often_the_split_was_opened(
    api: ApiServer,
) -> None:
    study = api.submit(dataset=api.upload(), budget={"n_trials": 2})["id"]
    end_trial(api, study, 1, "completed", 0.75)
    with api.context.database.transaction() as session:
        session.execute(update(Study).where(Study.id == study).values(test_opened=1))
    assert api.get(f"/v1/studies/{study}")["test"] == {"metrics": {"macro_f1": 0.75}, "opened": 1}


def test_progress_counts_ended_trials_and_shares_the_rest_among_those_running(
    api: ApiServer,
) -> None:
    study = api.submit(dataset=api.upload(), budget={"n_trials": 8, "max_parallel": 2})["id"]
    end_trial(api, study, 0, "completed", 0.5, seconds=8)
    end_trial(api, study, 1, "failed", None, seconds=4)
    with api.context.database.transaction() as session:
        two = Trial.number.in_((2, 3))
        session.execute(update(Trial).where(two).values(state="running"))
        session.execute(update(Study).values(state="running"))
    # 6 trials are left at 6 s each, two at a time.
    progress = {"done": 2, "total": 8, "share": 0.25, "eta_s": 18.0}
    assert api.get(f"/v1/studies/{study}")["progress"] == progress


def test_the_list_filters_by_state_and_label_and_pages_newest_first(api: ApiServer) -> None:
    dataset = api.upload()
    budget = {"n_trials": 1}
    made = [
        api.submit(dataset=dataset, budget=budget, labels={"team": team})["id"]
        for team in ("support", "sales", "support", "support")
    ]
    api.client.post(f"/v1/studies/{made[3]}/cancel")

    def ids(**params: Any) -> list[str]:
        return [item["id"] for item in api.get("/v1/studies", **params)["items"]]

    assert ids() == made[::-1]
    assert ids(label="team:support") == [made[3], made[2], made[0]]
    assert ids(label=["team:support", "team:sales"]) == []
    assert ids(state="cancelled") == [made[3]]
    assert ids(state="queued", label="team:support") == [made[2], made[0]]
    page = api.get("/v1/studies", limit=3)
    assert [item["id"] for item in page["items"]] == made[:0:-1]
    rest = api.get("/v1/studies", limit=3, cursor=page["next_cursor"])
    assert [item["id"] for item in rest["items"]] == [made[0]]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"state": "sleeping"}, "invalid_request"),
        ({"label": "team"}, "invalid_filter"),
        ({"limit": 0}, "invalid_request"),
        ({"limit": 501}, "invalid_request"),
        ({"cursor": "WzFd"}, "invalid_cursor"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(
    api: ApiServer, params: dict[str, Any], code: str
) -> None:
    answer = api.client.get("/v1/studies", params=params)
    assert (answer.status_code, answer.json()["error"]) == (422, code)
    assert answer.json()["where"] == ["query", next(iter(params))]


def test_a_key_of_a_study_that_was_deleted_makes_no_other_one(api: ApiServer) -> None:
    body = {"name": "tickets", "dataset": api.upload()}
    headers = {"Idempotency-Key": "once"}
    study = api.client.post("/v1/studies", json=body, headers=headers).json()
    with api.context.database.transaction() as session:
        session.execute(update(Study).values(deleted_at=Study.created_at))
    before = api.stored_rows()
    answer = api.client.post("/v1/studies", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (409, "study_deleted")
    assert answer.json()["where"] == ["header", "idempotency-key"]
    assert api.stored_rows() == before
    assert api.client.get(f"/v1/studies/{study['id']}").status_code == 404


def test_a_study_shows_what_its_files_take_on_the_disk(api: ApiServer) -> None:
    dataset = api.upload()
    one, other = (api.submit(dataset=dataset, budget={"n_trials": 2})["id"] for _ in range(2))
    with api.context.database.transaction() as session:
        for number, trial in enumerate(trials_of(api, one)):
            for name, size in (("model.zip", 3_000_000_000 + number), ("train.log", 10)):
                put_artifact(session, trial, name, sha256="a" * 64, size_bytes=size)
    shown = {item["id"]: item["disk_bytes"] for item in api.get("/v1/studies")["items"]}
    assert shown == {one: 6_000_000_021, other: 0}


def test_limits_and_whose_models_to_keep_are_stored_with_the_study(api: ApiServer) -> None:
    budget = {"n_trials": 2, "timeout_s": 60, "trial_timeout_s": 5}
    study = api.submit(dataset=api.upload(), budget=budget, checkpoint={"keep": "all"})
    with api.context.database.reading() as session:
        stored = session.get_one(Study, study["id"])
    assert (stored.timeout_s, stored.trial_timeout_s, stored.keep_models) == (60, 5, "all")


def test_a_page_of_studies_takes_as_many_queries_as_one_study(api: ApiServer) -> None:
    dataset = api.upload()
    counted: list[str] = []
    here = threading.current_thread()

    def count(_connection: Any, _cursor: Any, text: str, *_rest: Any) -> None:
        # Not what other threads happen to read meanwhile. A request would look its key up now and
        # then, too: hence the route's own function instead.
        if threading.current_thread() is here:
            counted.append(text)

    one = api.submit(dataset=dataset, budget={"n_trials": 2})["id"]
    end_trial(api, one, 0, "completed", 0.5)
    event.listen(api.context.database.engine, "before_cursor_execute", count)
    assert len(read_studies(api.context).items) == 1
    for_one = len(counted)
    assert for_one > 1
    for _ in range(4):
        study = api.submit(dataset=dataset, budget={"n_trials": 2})["id"]
        end_trial(api, study, 1, "completed", 0.25)
    counted.clear()
    assert len(read_studies(api.context).items) == 5
    assert len(counted) == for_one


def test_cancel_stops_queued_trials_and_may_be_repeated(api: ApiServer) -> None:
    study = api.submit(dataset=api.upload(), budget={"n_trials": 3})["id"]
    end_trial(api, study, 0, "completed", 0.5)
    for _ in range(2):
        answer = api.client.post(f"/v1/studies/{study}/cancel")
        assert answer.status_code == 200
        assert answer.json()["state"] == "cancelled"
        assert answer.json()["trials"]["cancelled"] == 2
        assert answer.json()["trials"]["completed"] == 1


def test_a_completed_study_cannot_be_cancelled(api: ApiServer) -> None:
    study = api.submit(dataset=api.upload(), budget={"n_trials": 1})["id"]
    with api.context.database.transaction() as session:
        session.execute(update(Study).values(state="completed"))
    answer = api.client.post(f"/v1/studies/{study}/cancel")
    assert (answer.status_code, answer.json()["error"]) == (409, "study_ended")


def test_validate_answers_lengths_truncation_and_defaults_and_stores_nothing(
    api: ApiServer,
) -> None:
    # 40 short texts of 3 known words, 10 long ones of 30: with [CLS] and [SEP] 5 and 32 tokens.
    words = ["alpha beta gamma"] * 40 + [" ".join(["alpha", "beta", "gamma"] * 10)] * 10
    rows = "text,label\n" + "".join(f"{text},{'ab'[i % 2]}\n" for i, text in enumerate(words))
    files = {"train": ("t.csv", rows), "validation": ("v.csv", "text,label\nalpha new,a\n")}
    kept = {"options": '{"duplicates": "keep"}'}
    dataset = api.client.post("/v1/datasets", files=files, data=kept).json()["id"]
    before = api.stored_rows()
    spec = {
        "name": "x",
        "dataset": dataset,
        "search_space": {"max_length": {"type": "categorical", "choices": [32, 5, 31]}},
    }
    answer = api.client.post("/v1/studies/validate", json=spec)
    assert answer.status_code == 200
    found = answer.json()
    assert found["token_lengths"] == {"p50": 5, "p90": 32, "p95": 32, "p99": 32, "max": 32}
    assert found["truncated"] == {"5": 0.2, "31": 0.2, "32": 0.0}
    # Of 42 pieces four texts have 3 and one has 30; two places are taken by special tokens.
    assert found["lost_tokens"] == {"5": 0.6429, "31": 0.0238, "32": 0.0}
    assert found["unknown_share"] == 0.0
    assert found["splits"] == {"train": 50, "validation": 1}
    assert found["resolved"]["training"]["learning_rate"] == 5e-4
    assert found["resolved"]["objective"] == {"metric": "macro_f1", "direction": "maximize"}
    assert found["resolved"]["sampler"]["name"] == "tpe"
    assert api.stored_rows() == before


def test_validate_shows_at_most_32_lengths_with_both_ends(api: ApiServer) -> None:
    spec = {
        "name": "x",
        "dataset": api.upload(),
        "search_space": {"max_length": {"type": "int", "low": 8, "high": 500}},
    }
    truncated = api.client.post("/v1/studies/validate", json=spec).json()["truncated"]
    lengths = [int(length) for length in truncated]
    assert len(lengths) == 32
    assert (lengths[0], lengths[-1]) == (8, 500)
    assert lengths == sorted(lengths)


def test_validate_warns_of_what_will_disappoint(api: ApiServer) -> None:
    files = {
        "train": ("t.csv", TICKETS + "one of a kind,rare\n"),
        "validation": ("v.csv", "text,label\nplease refund number 0 today,money\n"),
    }
    kept = {"options": '{"duplicates": "keep"}'}
    dataset = api.client.post("/v1/datasets", files=files, data=kept).json()["id"]
    spec = {
        "name": "x",
        "dataset": dataset,
        "search_space": {
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3},
            "class_weighting": {"type": "categorical", "choices": ["none", "effective_number"]},
        },
        "training": {
            "max_length": 4,
            "epochs": 1,
            "focal_gamma": 1.0,
            "early_stopping_delta": 0.1,
            "class_weighting_beta": 0.99,
        },
        "budget": {"n_trials": 5, "max_parallel": 9},
    }
    answer = api.client.post("/v1/studies/validate", json=spec)
    warnings = " ".join(answer.json()["warnings"])
    for sign in ("rare", "1 texts of validation", "cut even at max_length 4", "random", "prune"):
        assert sign in warnings
    assert "max_parallel 9" in warnings
    assert "focal_gamma does nothing unless loss is focal" in warnings
    assert "class_weighting_beta" not in warnings
    assert "early_stopping_delta does nothing" in warnings


def test_a_local_model_is_frozen_by_content_and_its_files_are_served(
    database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "team" / "bert"
    folder.mkdir(parents=True)
    config = {
        "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1,
        "max_position_embeddings": 40, "vocab_size": 9,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "please", "number", "today", "##s"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "secret.txt").write_text("not for workers")
    with serving(database, tmp_path / "home", model_dirs=(tmp_path / "models",)) as api:
        dataset = api.upload()
        study = api.submit(dataset=dataset, model="local:team/bert")
        with api.context.database.reading() as session:
            facts = session.get_one(Study, study["id"]).model_facts
        assert facts["max_positions"] == 40
        files = {file["path"]: file for file in facts["files"]}
        assert set(files) == {"config.json", "vocab.txt", "model.safetensors"}
        base = f"/v1/models/{facts['key']}/files"
        assert api.client.get(f"{base}/model.safetensors").content == b"weights"
        for path in ("secret.txt", "../bert/model.safetensors", "%2e%2e/secret.txt", "nope"):
            assert api.client.get(f"{base}/{path}").status_code == 404
        assert api.client.get(f"/v1/models/{'0' * 64}/files/config.json").status_code == 404
        spec = {"name": "x", "dataset": dataset, "model": "local:team/bert"}
        found = api.client.post("/v1/studies/validate", json=spec).json()
        assert found["resolved"]["search_space"]["max_length"]["high"] == 40
        # "please", "number" and "today" are known, the word and the number between them are not.
        assert found["unknown_share"] == pytest.approx(0.4)
        assert "does not know 40.0%" in " ".join(found["warnings"])
        assert "does not know 40.0%" in " ".join(study["warnings"])
        (folder / "model.safetensors").write_bytes(b"other weights")
        gone = api.client.get(f"{base}/config.json")
        assert gone.status_code == 200
        changed = api.client.get(f"{base}/model.safetensors")
        assert (changed.status_code, changed.json()["error"]) == (409, "model_changed")


def test_a_hub_model_comes_from_the_local_hub_cache_when_there_is_no_network(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = "a" * 40
    snapshot = tmp_path / "hub" / "models--team--tiny" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(commit)
    config = {
        "model_type": "roberta", "hidden_size": 32, "num_hidden_layers": 1,
        "max_position_embeddings": 130, "vocab_size": 9, "pad_token_id": 1,
    }  # fmt: skip
    (snapshot / "config.json").write_text(json.dumps(config))
    (snapshot / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "money"]))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with serving(database, tmp_path / "home") as api:
        study = api.submit(dataset=api.upload(), model="team/tiny")
        with api.context.database.reading() as session:
            facts = session.get_one(Study, study["id"]).model_facts
    assert facts.pop("unknown_share") > 0.5
    assert facts == {
        "kind": "hub",
        "name": "team/tiny",
        "revision": commit,
        "key": f"team/tiny@{commit}",
        "max_positions": 128,
        "model_type": "roberta",
        "layers": 1,
        "files": [],
    }


_SERVER_WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(f"the server imported {name}")

sys.meta_path.insert(0, Blocked())
from pathlib import Path
from fastapi.testclient import TestClient
from service.app import create_app
from service.settings import Settings

home = Path(sys.argv[1])
rows = "text,label\\n" + "".join(f"word {i},{'ab'[i % 2]}\\n" for i in range(40))
with TestClient(create_app(Settings(home=home))) as client:
    client.headers["Authorization"] = "Bearer " + (home / "admin.key").read_text().strip()
    dataset = client.post("/v1/datasets", files={"train": ("t.csv", rows)}).json()["id"]
    spec = {"name": "x", "dataset": dataset, "budget": {"n_trials": 2}}
    assert client.post("/v1/studies/validate", json=spec).status_code == 200
    assert client.post("/v1/studies", json=spec).status_code == 201
    assert client.get("/dashboard").status_code == 200
    claim = {"worker": "w", "request_id": "r"}
    lease = client.post("/v1/leases", json=claim)
    assert lease.status_code == 200, lease.text
    assert lease.json()["config"]["learning_rate"] > 0
print("served")
"""


def test_the_server_works_where_torch_and_transformers_cannot_be_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SERVER_WITHOUT_TORCH, str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "served\n"
