"""Bad input: each is refused with the place that is wrong, and nothing is stored of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from api_server import TICKETS, ApiServer, serving

from service.store.database import Database


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home = tmp_path_factory.mktemp("home")
    database = Database(f"sqlite:///{home / 'bertune.db'}")
    roots = home / "models"
    (roots / "broken").mkdir(parents=True)
    (roots / "broken" / "config.json").write_text("no json")
    (roots / "gpt").mkdir()
    (roots / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    with serving(database, home, model_dirs=(roots,)) as server:
        yield server
    database.dispose()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that is out of reach, and a hub cache with nothing in it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def dataset(api: ApiServer) -> str:
    return api.upload()


def refused(api: ApiServer, path: str, **request: Any) -> dict[str, Any]:
    """Send the request; return the refusal after checking that nothing was stored."""
    rows, files = api.stored_rows(), api.stored_files()
    answer = api.client.post(path, **request)
    assert 400 <= answer.status_code < 500, answer.text
    assert api.stored_rows() == rows
    assert api.stored_files() == files
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error", "detail", "where"}
    assert body["detail"]
    return body


BAD_FILES: list[tuple[str, bytes, str, list[str]]] = [
    ("an empty file", b"", "empty_file", ["body", "train"]),
    ("a header alone", b"text,label\n", "no_rows", ["body", "train"]),
    ("one class", b"text,label\na,x\nb,x\nc,x\n", "one_class", ["body", "train"]),
    ("no text column", b"words,label\na,x\nb,y\n", "missing_column", ["body", "options", "text"]),
    ("no label column", b"text,topic\na,x\nb,y\n", "missing_column", ["body", "options", "label"]),
    ("Latin-1", b"text,label\ncaf\xe9,x\n", "not_utf8", ["body", "train", "line 2"]),
    ("a NUL byte", b"text,label\na\0b,x\nc,y\n", "nul_byte", ["body", "train", "line 2"]),
    ("a field too many", b"text,label\na,x\nb,y,z\n", "bad_row", ["body", "train", "line 3"]),
    ("too few rows", b"text,label\na,x\nb,y\n", "too_few_rows", ["body", "train"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "code", "where"),
    [case[1:] for case in BAD_FILES],
    ids=[case[0] for case in BAD_FILES],
)
def test_a_file_that_cannot_be_used_is_refused(
    api: ApiServer, content: bytes, code: str, where: list[str]
) -> None:
    body = refused(api, "/v1/datasets", files={"train": ("t.csv", content)})
    assert (body["error"], body["where"]) == (code, where)


def test_a_label_that_train_does_not_have_is_refused(api: ApiServer) -> None:
    files = {"train": ("t.csv", TICKETS), "validation": ("v.csv", "text,label\nhi,unheard\n")}
    body = refused(api, "/v1/datasets", files=files)
    assert body["error"] == "unseen_label"
    assert body["where"] == ["body", "validation", "line 2"]
    assert "unheard" in body["detail"]


@pytest.mark.parametrize(
    ("options", "code", "where"),
    [
        ('{"foo": 1}', "unknown_option", ["body", "options", "foo"]),
        ('{"missing": "guess"}', "invalid_value", ["body", "options", "missing"]),
        ('{"encoding": "klingon"}', "unknown_encoding", ["body", "options", "encoding"]),
        ('{"delimiter": ";;"}', "invalid_value", ["body", "options", "delimiter"]),
        ('{"quoting": "all"}', "invalid_value", ["body", "options", "quoting"]),
        (
            '{"validation_fraction": 1.5}',
            "invalid_value",
            ["body", "options", "validation_fraction"],
        ),
        (
            '{"validation_fraction": NaN}',
            "invalid_value",
            ["body", "options", "validation_fraction"],
        ),
        ('{"test_fraction": "many"}', "invalid_value", ["body", "options", "test_fraction"]),
        ("[]", "bad_json", ["body", "options"]),
        ("{", "bad_json", ["body", "options"]),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    api: ApiServer, options: str, code: str, where: list[str]
) -> None:
    files = {"train": ("t.csv", TICKETS)}
    body = refused(api, "/v1/datasets", files=files, data={"options": options})
    assert (body["error"], body["where"]) == (code, where)


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"name": "x" * 301}, "invalid_value"), ({"name": "a\0b"}, "nul_byte")],
)
def test_a_name_that_cannot_be_stored_is_refused(
    api: ApiServer, fields: dict[str, str], code: str
) -> None:
    body = refused(api, "/v1/datasets", files={"train": ("t.csv", TICKETS)}, data=fields)
    assert (body["error"], body["where"]) == (code, ["body", "name"])


RATE = {"type": "float", "low": 1e-4, "high": 1e-3}
BAD_SPECS: list[tuple[str, dict[str, Any], str, list[str | int]]] = [
    ("unknown field", {"modle": "x"}, "invalid_request", ["modle"]),
    ("unknown nested field", {"budget": {"trials": 3}}, "invalid_request", ["budget", "trials"]),
    ("no name", {"name": None}, "invalid_request", ["name"]),
    ("a name with a bracket", {"name": "a [1]"}, "invalid_request", ["name"]),
    ("unknown data set", {"dataset": "nope"}, "unknown_dataset", ["dataset"]),
    ("a data set id with NUL", {"dataset": "a\0b"}, "unknown_dataset", ["dataset"]),
    ("unknown scratch size", {"model": "scratch:giant"}, "unknown_model", ["model"]),
    ("unknown local model", {"model": "local:nope"}, "unknown_model", ["model"]),
    ("a local name that climbs", {"model": "local:../models/gpt"}, "unknown_model", ["model"]),
    ("an absolute local name", {"model": "local:/etc"}, "unknown_model", ["model"]),
    ("a broken local model", {"model": "local:broken"}, "unknown_model", ["model"]),
    ("an unsupported model", {"model": "local:gpt"}, "unsupported_model", ["model"]),
    ("a hub model out of reach", {"model": "bert-base-uncased"}, "model_unavailable", ["model"]),
    ("no model name at all", {"model": "what is this?"}, "unknown_model", ["model"]),
    ("another task", {"task": "regression"}, "wrong_task", ["task"]),
    ("unknown metric", {"objective": {"metric": "f7"}}, "unknown_metric", ["objective", "metric"]),
    (
        "the wrong direction",
        {"objective": {"metric": "loss", "direction": "maximize"}},
        "wrong_direction",
        ["objective", "direction"],
    ),
    ("an empty space", {"search_space": {}}, "empty_search_space", ["search_space"]),
    (
        "an unknown parameter",
        {"search_space": {"speed": RATE}},
        "unknown_setting",
        ["search_space", "speed"],
    ),
    (
        "an inverted range",
        {"search_space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-4}}},
        "inverted_range",
        ["search_space", "learning_rate"],
    ),
    (
        "an empty range",
        {"search_space": {"batch_size": {"type": "categorical", "choices": []}}},
        "empty_range",
        ["search_space", "batch_size", "choices"],
    ),
    (
        "batch size 0",
        {"search_space": {"batch_size": {"type": "categorical", "choices": [16, 0]}}},
        "invalid_value",
        ["search_space", "batch_size", "choices", 1],
    ),
    (
        "a bound that is text",
        {"search_space": {"learning_rate": RATE | {"low": "small"}}},
        "invalid_request",
        ["search_space", "learning_rate", "low"],
    ),
    (
        "an unknown type",
        {"search_space": {"learning_rate": {"type": "log", "low": 1, "high": 2}}},
        "invalid_request",
        ["search_space", "learning_rate"],
    ),
    (
        "a length over the positions",
        {"search_space": {"max_length": {"type": "int", "low": 16, "high": 1024}}},
        "max_length_over_positions",
        ["search_space", "max_length"],
    ),
    (
        "a fixed length over the positions",
        {"training": {"max_length": 600}, "search_space": {"learning_rate": RATE}},
        "max_length_over_positions",
        ["training", "max_length"],
    ),
    (
        "fixed and searched",
        {"search_space": {"learning_rate": RATE}, "training": {"learning_rate": 1e-4}},
        "fixed_and_searched",
        ["search_space", "learning_rate"],
    ),
    ("no epoch", {"training": {"epochs": 0}}, "invalid_value", ["training", "epochs"]),
    ("endless epochs", {"training": {"epochs": 10**400}}, "invalid_value", ["training", "epochs"]),
    (
        "enqueued out of range",
        {"enqueue": [{}, {"learning_rate": 0.5}]},
        "invalid_value",
        ["enqueue", 1, "learning_rate"],
    ),
    (
        "enqueued and not searched",
        {"enqueue": [{"epochs": 3}]},
        "not_searched",
        ["enqueue", 0, "epochs"],
    ),
    (
        "a continuous grid",
        {"sampler": {"name": "grid"}},
        "continuous_grid",
        ["search_space", "learning_rate"],
    ),
    ("an unknown sampler", {"sampler": {"name": "magic"}}, "invalid_request", ["sampler"]),
    (
        "a sampler's unknown option",
        {"sampler": {"name": "tpe", "luck": 1}},
        "invalid_request",
        ["sampler", "luck"],
    ),
    ("no trials", {"budget": {"n_trials": 0}}, "invalid_request", ["budget", "n_trials"]),
    (
        "too many trials",
        {"budget": {"n_trials": 100_001}},
        "invalid_request",
        ["budget", "n_trials"],
    ),
    (
        "an endless time",
        {"budget": {"timeout_s": 1e300}},
        "invalid_request",
        ["budget", "timeout_s"],
    ),
    ("a seed below 0", {"seed": -1}, "invalid_request", ["seed"]),
    ("a label key with a colon", {"labels": {"a:b": "c"}}, "invalid_value", ["labels", "a:b"]),
    ("a label without a key", {"labels": {"": "c"}}, "invalid_value", ["labels", ""]),
    ("a long label", {"labels": {"a": "c" * 301}}, "invalid_value", ["labels", "a"]),
    ("a label with NUL", {"labels": {"a": "c\0"}}, "invalid_value", ["labels", "a"]),
]


@pytest.mark.parametrize("path", ["/v1/studies", "/v1/studies/validate"])
@pytest.mark.parametrize(
    ("change", "code", "where"),
    [case[1:] for case in BAD_SPECS],
    ids=[case[0] for case in BAD_SPECS],
)
def test_a_spec_that_cannot_be_run_is_refused(
    api: ApiServer,
    dataset: str,
    path: str,
    change: dict[str, Any],
    code: str,
    where: list[str | int],
) -> None:
    body = refused(api, path, json={"name": "x", "dataset": dataset} | change)
    assert (body["error"], body["where"]) == (code, ["body", *where])


def test_a_model_out_of_reach_comes_with_advice(api: ApiServer, dataset: str) -> None:
    spec = {"name": "x", "dataset": dataset, "model": "org/name@main"}
    detail = refused(api, "/v1/studies", json=spec)["detail"]
    for advice in ("org/name", "local:NAME", "BERTUNE_MODEL_DIRS", "scratch:tiny"):
        assert advice in detail


def test_several_mistakes_are_told_at_once(api: ApiServer) -> None:
    body = refused(api, "/v1/studies", json={"name": "", "dataset": "x", "seed": "y", "speed": 1})
    for name in ("name:", "seed:", "speed: there is no such field"):
        assert name in body["detail"]


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'{"name": "x", ', ["body"]),
        (b"", ["body"]),
        (b"[1]", ["body"]),
        (b'{"name": "x", "dataset": "\\ud800"}', ["body", "dataset"]),
        (b'{"name": "x", "dataset": "d", "labels": {"\\ud800": "x"}}', ["body"]),
        (b'{"name": "x", "dataset": "d", "training": {"\\ud800": 1}}', ["body"]),
        (b'{"name": "x", "dataset": "d", "enqueue": [{"\\ud800": 1}]}', ["body"]),
        (b'{"name": "x", "dataset": "d", "\\ud800": 1}', ["body"]),
        (b'{"name": "x", "dataset": "d", "budget": {"timeout_s": Infinity}}', None),
        (b'{"name": "x", "dataset": "d", "pruner": {"name": "threshold", "upper": NaN}}', None),
    ],
)
def test_a_body_that_is_no_proper_json_is_refused(
    api: ApiServer, content: bytes, where: list[str] | None
) -> None:
    headers = {"content-type": "application/json"}
    body = refused(api, "/v1/studies", content=content, headers=headers)
    assert body["error"] in ("invalid_request", "unknown_dataset")
    if where is not None:
        assert body["where"][: len(where)] == where


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "naïve".encode().decode("latin-1")])
def test_an_idempotency_key_that_cannot_be_stored_is_refused(
    api: ApiServer, dataset: str, key: str
) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    spec = {"name": "x", "dataset": dataset}
    body = refused(api, "/v1/studies", content=json.dumps(spec), headers=headers | JSON)
    assert body["where"] == ["header", "idempotency-key"]


JSON = {"content-type": "application/json"}


def test_a_body_that_is_no_json_object_is_told_what_to_send(api: ApiServer) -> None:
    body = refused(api, "/v1/studies", content=b'{"name": "a"}', headers={"Content-Type": "text/x"})
    assert body["where"] == ["body"]
    assert "Content-Type: application/json" in body["detail"]
