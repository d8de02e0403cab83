"""Data sets over HTTP: upload, identity, download, and what is refused."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from api_server import TICKETS, ApiServer, serving

from model.splits import split_positions
from service.intake.held_out import divide
from service.routes.cursors import encode_cursor
from service.store.database import Database
from service.store.tables import Dataset


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[ApiServer]:
    with serving(database, tmp_path / "home") as server:
        yield server


def test_an_upload_answers_what_the_reader_found(api: ApiServer) -> None:
    rows = "text,label\none two,x\nthree,y\none two,x\n,x\nfour,y\nfive six seven,x\nsix,y\n"
    answer = api.client.post(
        "/v1/datasets", files={"train": ("My data.csv", rows)}, data={"options": "{}"}
    )
    assert answer.status_code == 201
    dataset = answer.json()
    assert dataset["name"] == "My data"
    assert dataset["task"] == "single_label"
    assert dataset["columns"] == {"text_a": "text", "text_b": None, "label": "label"}
    assert dataset["rows"] == {"train": 5}
    assert dataset["dropped"] == {"train": {"missing": 1, "duplicate": 1}}
    assert dataset["labels"] == ["x", "y"]
    assert dataset["label_counts"] == {"train": {"x": 2, "y": 3}}
    assert dataset["missing"]["train"] == {"text": 1, "label": 0, "group": 0, "date": 0, "field": 0}
    assert dataset["duplicates"] == {"train": 1}
    assert dataset["options"]["missing"] == "drop"
    assert (
        "1 of 7 train rows were dropped, as text and label stood there before."
        in (dataset["warnings"])
    )
    assert dataset["words"]["max"] == 3
    assert dataset["created_at"].endswith("Z")
    assert set(dataset["files"]) == {"train"}


def test_the_same_content_is_the_same_data_set_and_other_fractions_are_another(
    api: ApiServer,
) -> None:
    first = api.upload(TICKETS, "a.csv")
    assert api.upload(TICKETS, "b.csv") == first
    assert api.upload(TICKETS, options='{"validation_fraction": 0.3}') != first
    assert len(api.get("/v1/datasets")["items"]) == 2
    assert api.get(f"/v1/datasets/{first}")["name"] == "a"
    assert api.upload(TICKETS, "b.csv", name="again") == first
    assert api.get(f"/v1/datasets/{first}")["name"] == "again"


def test_a_file_downloads_with_the_hash_that_was_promised(api: ApiServer) -> None:
    files = {
        "train": ("t.csv", TICKETS),
        "validation": ("v.tsv", "text\tlabel\nhello\tbill\n"),
        "test": ("e.jsonl", json.dumps({"text": "hi", "label": "money"}) + "\n"),
    }
    dataset = api.client.post("/v1/datasets", files=files).json()
    assert dataset["rows"] == {"train": 60, "validation": 1, "test": 1}
    for split, facts in dataset["files"].items():
        answer = api.client.get(f"/v1/datasets/{dataset['id']}/files/{split}")
        assert hashlib.sha256(answer.content).hexdigest() == facts["sha256"]
        assert len(answer.content) == facts["bytes"]
        assert answer.headers["etag"] == f'"{facts["sha256"]}"'
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.to_pylist() == [{"row": 1, "text_a": "hi", "text_b": None, "label": "money"}]


def test_parquet_and_named_columns_are_read(api: ApiServer) -> None:
    buffer = io.BytesIO()
    columns = {"body": [f"text {i}" for i in range(30)], "topic": [i % 2 for i in range(30)]}
    pq.write_table(pa.table(columns), buffer)
    options = '{"text": "body", "label": "topic"}'
    dataset_id = api.upload(buffer.getvalue(), "data.parquet", options=options)
    assert api.get(f"/v1/datasets/{dataset_id}")["labels"] == ["0", "1"]


def test_uploads_of_the_same_content_at_once_all_succeed_and_make_one_row(
    api: ApiServer,
) -> None:
    start = threading.Barrier(6)

    def upload(_: int) -> str:
        start.wait(10)
        return api.upload(TICKETS)

    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(upload, range(6)))
    assert len(ids) == 1
    assert api.stored_rows()["dataset"] == 1
    assert api.stored_rows()["dataset_file"] == 1
    assert api.stored_files() == {f"datasets/{ids.pop()}/train.parquet"}


def test_the_list_pages_through_every_data_set_once_newest_first(api: ApiServer) -> None:
    made = [api.upload(TICKETS + f"extra {i},bill\n") for i in range(5)]
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        page = api.get("/v1/datasets", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == made[::-1]


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        "WzFd",
        "W251bGxd",
        "é",
        encode_cursor(["no time", "x"]),
        encode_cursor(["0001-01-01T00:00:00+14:00", "x"]),
        encode_cursor(["2026-01-01T00:00:00+00:00", "\0"]),
        encode_cursor(["2026-01-01T00:00:00+00:00", "\ud800"]),
    ],
)
def test_a_cursor_that_no_list_gave_is_refused(api: ApiServer, cursor: str) -> None:
    answer = api.client.get("/v1/datasets", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["error"] == "invalid_cursor"
    assert answer.json()["where"] == ["query", "cursor"]


def test_an_upload_beyond_the_limit_is_refused_and_leaves_nothing(
    database: Database, tmp_path: Path
) -> None:
    with serving(database, tmp_path / "home", max_upload_bytes=1000) as api:
        answer = api.client.post("/v1/datasets", files={"train": ("t.csv", TICKETS)})
        assert answer.status_code == 413
        assert answer.json()["error"] == "too_large"

        def chunks() -> Iterator[bytes]:  # no Content-Length: found out on the way
            yield b'--b\r\nContent-Disposition: form-data; name="train"; filename="t.csv"\r\n\r\n'
            yield TICKETS.encode()
            yield b"\r\n--b--\r\n"

        answer = api.client.post(
            "/v1/datasets",
            content=chunks(),
            headers={"content-type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code == 413
        assert api.stored_rows()["dataset"] == 0
        assert api.stored_files() == set()


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("text/csv", TICKETS, 415, "unsupported_media_type"),
        ("multipart/form-data", TICKETS, 415, "unsupported_media_type"),
        ("multipart/form-data; boundary=b", "no form at all", 400, "broken_upload"),
        (
            "multipart/form-data; boundary=b",
            '--b\r\nContent-Disposition: form-data; name="train"; filename="t.csv"\r\n\r\ntext,la',
            400,
            "broken_upload",
        ),
        ("multipart/form-data; boundary=b", "--b--\r\n", 422, "missing_split"),
        (
            "multipart/form-data; boundary=b",
            '--b\r\nContent-Disposition: form-data; name="trian"\r\n\r\nx\r\n--b--\r\n',
            422,
            "unknown_field",
        ),
        (
            "multipart/form-data; boundary=b",
            '--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n' * 2 + "--b--\r\n",
            422,
            "duplicate_field",
        ),
    ],
)
def test_a_body_that_is_no_proper_form_is_refused(
    api: ApiServer, content_type: str, body: str, status: int, code: str
) -> None:
    answer = api.client.post("/v1/datasets", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert api.stored_files() == set()


def test_a_filename_never_becomes_a_path(api: ApiServer) -> None:
    dataset_id = api.upload(TICKETS, "../../../etc/evil\\..\\x.csv")
    assert api.get(f"/v1/datasets/{dataset_id}")["name"] == "x"
    assert api.stored_files() == {f"datasets/{dataset_id}/train.parquet"}


@pytest.mark.parametrize("path", ["nope", "nope/files/train", "a%00b", "../../etc"])
def test_an_unknown_data_set_is_a_clear_4xx(api: ApiServer, path: str) -> None:
    answer = api.client.get(f"/v1/datasets/{path}")
    assert answer.status_code in (404, 422)
    assert set(answer.json()) == {"error", "detail", "where"}


def test_an_unknown_file_of_a_known_data_set_is_404(api: ApiServer) -> None:
    dataset_id = api.upload()
    for name in ("test", "indices-7", "..%2Ftrain"):
        answer = api.client.get(f"/v1/datasets/{dataset_id}/files/{name}")
        assert answer.status_code == 404, name


def test_a_big_upload_streams_through_in_blocks(api: ApiServer) -> None:
    lines = [f"some words about topic {i % 7} number {i},label {i % 7}\n" for i in range(100_000)]
    text = "text,label\n" + "".join(lines)
    assert len(text) > 3 << 20  # several blocks of the writer
    dataset_id = api.upload(text)
    assert api.get(f"/v1/datasets/{dataset_id}")["rows"] == {"train": 100_000}


def test_texts_made_of_columns_and_splits_by_group_reach_validate_and_every_study(
    api: ApiServer,
) -> None:
    lines = [
        {"body": f"note {k}", "meta": {"from": "ann"}, "who": f"c{k // 3}", "label": "xy"[k % 2]}
        for k in range(30)
    ]
    files = {"train": ("t.jsonl", "\n".join(map(json.dumps, lines)))}
    options = {"template": "[from] {meta.from} [text] {body}", "group": "who"}
    answer = api.client.post("/v1/datasets", files=files, data={"options": json.dumps(options)})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert dataset["columns"]["text_a"] == options["template"]
    assert dataset["columns"]["group"] == "who"
    spec = {"name": "x", "dataset": dataset["id"], "seed": 3}
    found = api.client.post("/v1/studies/validate", json=spec).json()
    assert found["splits"] == {"train": 24, "validation": 6}
    api.submit(**spec)
    with api.context.database.reading() as session:
        stored = session.get_one(Dataset, dataset["id"])
        rows = divide(api.context.folders, stored, seed=3)
    groups = [{int(k) // 3 for k in part} for part in split_positions(rows)]
    assert [len(part) for part in split_positions(rows)] == [24, 6, 0]
    assert not groups[0] & groups[1]


def test_columns_kept_apart_are_counted_and_one_text_cannot_be_encoded_apart(
    api: ApiServer,
) -> None:
    lines = [f"s{k},body {k},{'' if k % 4 else 'n'},{'xy'[k % 2]}" for k in range(16)]
    files = {"train": ("t.csv", "\n".join(["subject,body,notes,label", *lines]))}
    options = {"text_columns": ["subject", "body", "notes"], "missing": "empty"}
    answer = api.client.post("/v1/datasets", files=files, data={"options": json.dumps(options)})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert dataset["columns"] == {
        "text_a": "subject", "text_b": "body", "text_c": "notes", "label": "label"
    }  # fmt: skip
    assert dataset["missing_texts"] == {"train": {"subject": 0, "body": 0, "notes": 12}}
    space = {
        "columns": {"type": "categorical", "choices": ["joined", "apart"]},
        "max_length": {"type": "categorical", "choices": [5, 32]},
    }
    spec = {"name": "x", "dataset": dataset["id"], "search_space": space}
    found = api.client.post("/v1/studies/validate", json=spec).json()
    # Where it is searched, columns are joined: four special tokens leave room for one piece.
    assert found["truncated"] == {"5": 1.0, "32": 0.0}
    spec |= {"training": {"columns": "apart"}, "search_space": {"max_length": space["max_length"]}}
    found = api.client.post("/v1/studies/validate", json=spec).json()
    assert found["truncated"]["5"] < 1
    one = {"train": ("t.csv", "text,label\n" + "".join(f"{k},{'xy'[k % 2]}\n" for k in range(16)))}
    spec["dataset"] = api.client.post("/v1/datasets", files=one).json()["id"]
    for changed, where in (
        ({}, ["body", "training", "columns"]),
        ({"training": {}, "search_space": space}, ["body", "search_space", "columns"]),
    ):
        answer = api.client.post("/v1/studies", json=spec | changed)
        assert (answer.status_code, answer.json()["where"]) == (422, where)


def test_several_text_columns_are_named_by_a_list_and_a_wrong_option_by_its_name(
    api: ApiServer,
) -> None:
    files = {
        "train": ("t.csv", "a,b,label\n" + "".join(f"{k},t,{'xy'[k % 2]}\n" for k in range(8)))
    }
    dataset = api.client.post(
        "/v1/datasets", files=files, data={"options": '{"text": ["a", "b"], "separator": ": "}'}
    ).json()
    assert dataset["columns"]["text_a"] == "a + b"
    assert dataset["options"]["text"] == ["a", "b"]
    assert api.get(f"/v1/datasets/{dataset['id']}") == dataset
    for options, where in (('{"text": 3}', "text"), ('{"missing": "mark"}', "missing")):
        answer = api.client.post("/v1/datasets", files=files, data={"options": options})
        assert answer.status_code == 422
        assert answer.json()["where"] == ["body", "options", where]
