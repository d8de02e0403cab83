"""Trials over HTTP: reads, the confusion matrix in its three forms, files."""

import csv
import hashlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from api_server import ApiServer, serving
from sqlalchemy import select

from service.routes.cursors import encode_cursor
from service.store.database import Database
from service.store.tables import (
    Artifact,
    Attempt,
    ClassMetric,
    ConfusionCell,
    EpochMetric,
    Result,
    Study,
    Trial,
    Worker,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LABELS = ["bill", "login", "money"]


class Recorded:
    """A study of three trials; trial 1 has been completed by its second attempt."""

    def __init__(self, api: ApiServer) -> None:
        self.api = api
        dataset = api.upload()
        self.study = api.submit(dataset=dataset, budget={"n_trials": 3})["id"]
        self.base = f"/v1/studies/{self.study}"
        with api.context.database.transaction() as session:
            query = select(Trial).where(Trial.study_id == self.study, Trial.number == 1)
            trial = session.scalars(query).one()
            session.add(Worker(id="w-1", first_seen_at=NOW, last_seen_at=NOW))
            session.flush()
            trial.state, trial.attempt, trial.value, trial.best_epoch = "completed", 2, 0.75, 1
            trial.params = {"learning_rate": 0.001, "batch_size": 16, "max_length": 32}
            trial.worker_id, trial.started_at, trial.finished_at = "w-1", NOW, NOW
            self.trial_id = trial.id
            self._record_scores(session.add_all)

    def _record_scores(self, add_all: Any) -> None:
        trial = self.trial_id
        add_all(
            [
                EpochMetric(trial_id=trial, attempt=1, epoch=0, metric="macro_f1", value=0.1),
                EpochMetric(trial_id=trial, attempt=2, epoch=0, metric="macro_f1", value=0.5),
                EpochMetric(trial_id=trial, attempt=2, epoch=0, metric="loss", value=None),
                EpochMetric(trial_id=trial, attempt=2, epoch=1, metric="macro_f1", value=0.75),
                Result(trial_id=trial, split="validation", metric="macro_f1", value=0.75),
                Result(trial_id=trial, split="validation", metric="accuracy", value=0.8),
                Result(trial_id=trial, split="test", metric="accuracy", value=0.7),
            ]
        )
        add_all(
            ClassMetric(
                trial_id=trial,
                split=split,
                head="label",
                label=label,
                precision=0.5,
                recall=1.0,
                f1=0.66,
                support=support,
            )
            for split in ("validation", "test")
            for support, label in enumerate(reversed(LABELS), start=3)
        )
        cells = {("bill", "bill"): 5, ("bill", "money"): 2, ("login", "login"): 7}
        add_all(
            ConfusionCell(
                trial_id=trial,
                split="validation",
                head="label",
                kind="multiclass",
                true_label=true,
                predicted_label=predicted,
                unit="rows",
                count=count,
            )
            for (true, predicted), count in cells.items()
        )

    def add_attempts(self, ends: list[tuple[str | None, dict[str, Any] | None]]) -> None:
        """Attempts 1, 2, … of trial 1, as (outcome, info)."""
        with self.api.context.database.transaction() as session:
            session.add_all(
                Attempt(
                    trial_id=self.trial_id,
                    attempt=number,
                    worker_id="w-1",
                    slot=0,
                    request_id=f"r{number}",
                    lease_s=60,
                    outcome=outcome,
                    info=info,
                    started_at=NOW,
                    ended_at=NOW if outcome else None,
                )
                for number, (outcome, info) in enumerate(ends, start=1)
            )

    def add_artifact(self, name: str, content: bytes, attempt: int = 2) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.api.context.folders.artifact(self.trial_id, attempt, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with self.api.context.database.transaction() as session:
            artifact = Artifact(
                trial_id=self.trial_id,
                attempt=attempt,
                name=name,
                study_id=self.study,
                sha256=sha256,
                bytes=len(content),
                created_at=NOW,
            )
            session.add(artifact)
        return sha256


@pytest.fixture
def recorded(database: Database, tmp_path: Path) -> Iterator[Recorded]:
    with serving(database, tmp_path / "home") as server:
        yield Recorded(server)


def test_a_trial_shows_the_epochs_of_its_current_attempt_and_its_scores(
    recorded: Recorded,
) -> None:
    trial = recorded.api.get(f"{recorded.base}/trials/1")
    assert trial["number"] == 1
    assert trial["state"] == "completed"
    assert trial["attempt"] == 2
    assert trial["params"] == {"learning_rate": 0.001, "batch_size": 16, "max_length": 32}
    assert (trial["value"], trial["best_epoch"]) == (0.75, 1)
    assert trial["epochs"] == [
        {"epoch": 0, "metrics": {"macro_f1": 0.5}},  # its loss was not finite
        {"epoch": 1, "metrics": {"macro_f1": 0.75}},
    ]
    assert trial["metrics"] == {"accuracy": 0.8, "macro_f1": 0.75}
    assert [(row["label"], row["support"]) for row in trial["per_class"]] == [
        ("bill", 5),
        ("login", 4),
        ("money", 3),
    ]
    assert trial["worker"] == "w-1"
    assert trial["started_at"] == "2026-05-01T12:00:00.000Z"
    assert trial["error"] is None


def test_the_list_is_by_number_with_the_last_epoch_and_without_the_evaluation(
    recorded: Recorded,
) -> None:
    with recorded.api.context.database.transaction() as session:
        evaluation = Trial(
            id="evaluation", study_id=recorded.study, kind="evaluate", state="queued", seed=0
        )
        session.add(evaluation)
    page = recorded.api.get(f"{recorded.base}/trials", limit=2)
    assert [trial["number"] for trial in page["items"]] == [0, 1]
    assert [trial["epoch"] for trial in page["items"]] == [None, 1]
    assert page["items"][1]["metrics"] == {"accuracy": 0.8, "macro_f1": 0.75}
    rest = recorded.api.get(f"{recorded.base}/trials", cursor=page["next_cursor"])
    assert [trial["number"] for trial in rest["items"]] == [2]
    assert rest["next_cursor"] is None
    done = recorded.api.get(f"{recorded.base}/trials", state="completed")
    assert [trial["number"] for trial in done["items"]] == [1]


def test_a_failed_trial_tells_its_error(recorded: Recorded) -> None:
    with recorded.api.context.database.transaction() as session:
        query = select(Trial).where(Trial.study_id == recorded.study, Trial.number == 2)
        trial = session.scalars(query).one()
        trial.state, trial.error_code, trial.error_detail = "failed", "nan_loss", "at step 3"
    shown = recorded.api.get(f"{recorded.base}/trials/2")
    assert shown["error"] == {"code": "nan_loss", "detail": "at step 3"}


def test_a_trial_tells_how_each_of_its_attempts_ended(recorded: Recorded) -> None:
    died = {"code": "trainer_crashed", "detail": "killed by SIGKILL"}
    result = {"seconds": 3.0, "problems": ["disk_full: no checkpoint"], "resumed_from_epoch": 2}
    ends: list[tuple[str | None, dict[str, Any] | None]] = [
        ("crashed", died),
        ("lost", {"reason": "the lease lapsed"}),
        ("released", {"reason": "drain"}),
        ("completed", result),
    ]
    recorded.add_attempts(ends)
    attempts = recorded.api.get(f"{recorded.base}/trials/1")["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == [outcome for outcome, _ in ends]
    assert [attempt["error"] for attempt in attempts] == [
        died,
        {"code": "lost", "detail": "the lease lapsed"},
        None,
        None,
    ]
    assert attempts[3] == {
        "attempt": 4,
        "worker": "w-1",
        "outcome": "completed",
        "error": None,
        "problems": ["disk_full: no checkpoint"],
        "resumed_from_epoch": 2,
        "started_at": "2026-05-01T12:00:00.000Z",
        "ended_at": "2026-05-01T12:00:00.000Z",
    }


def test_an_attempt_that_runs_has_no_outcome_and_one_over_its_time_says_so(
    recorded: Recorded,
) -> None:
    limit = {"code": "trial_timeout", "detail": "It trained for 61 s of 60 s."}
    recorded.add_attempts([("timed_out", limit), (None, None)])
    first, second = recorded.api.get(f"{recorded.base}/trials/1")["attempts"]
    assert first["error"] == limit
    assert (second["outcome"], second["error"], second["ended_at"]) == (None, None, None)


@pytest.mark.parametrize("odd", [{"problems": "none", "resumed_from_epoch": True}, {"problems": 1}])
def test_what_a_strange_worker_wrote_about_an_attempt_breaks_no_answer(
    recorded: Recorded, odd: dict[str, Any]
) -> None:
    recorded.add_attempts([("completed", odd)])
    (attempt,) = recorded.api.get(f"{recorded.base}/trials/1")["attempts"]
    assert (attempt["problems"], attempt["resumed_from_epoch"]) == ([], None)


def test_a_trial_that_never_ran_has_no_attempts(recorded: Recorded) -> None:
    assert recorded.api.get(f"{recorded.base}/trials/0")["attempts"] == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/studies/nope", "unknown_study"),
        ("/v1/studies/nope/trials", "unknown_study"),
        ("/v1/studies/nope/trials/0", "unknown_study"),
        ("{base}/trials/3", "unknown_trial"),
        ("{base}/trials/0/confusion-matrix", "no_confusion_matrix"),
        ("{base}/trials/1/confusion-matrix?split=test", "no_confusion_matrix"),
        ("{base}/trials/1/confusion-matrix?head=other", "no_confusion_matrix"),
        ("{base}/trials/1/predictions", "not_recorded"),
        ("{base}/trials/1/log", "not_recorded"),
        ("{base}/trials/1/artifacts/model.zip", "unknown_artifact"),
        ("{base}/best/model", "no_model"),
    ],
)
def test_what_is_not_there_is_a_404_that_says_what(
    recorded: Recorded, path: str, code: str
) -> None:
    answer = recorded.api.client.get(path.format(base=recorded.base))
    assert (answer.status_code, answer.json()["error"]) == (404, code)
    assert answer.json()["detail"]


@pytest.mark.parametrize("number", ["-1", "x", str(2**31), "1.5"])
def test_a_number_that_no_trial_can_have_is_refused(recorded: Recorded, number: str) -> None:
    answer = recorded.api.client.get(f"{recorded.base}/trials/{number}")
    assert answer.status_code == 422
    assert answer.json()["where"] == ["path", "number"]


def test_a_cursor_beyond_every_number_is_refused(recorded: Recorded) -> None:
    cursor = encode_cursor([10**30])
    answer = recorded.api.client.get(f"{recorded.base}/trials", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_cursor")


def test_the_best_model_of_a_study_without_a_completed_trial_is_404(recorded: Recorded) -> None:
    dataset = recorded.api.get(recorded.base)["dataset"]
    fresh = recorded.api.submit(dataset=dataset, budget={"n_trials": 1})["id"]
    answer = recorded.api.client.get(f"/v1/studies/{fresh}/best/model")
    assert (answer.status_code, answer.json()["error"]) == (404, "no_best_trial")


def test_the_matrix_has_every_label_with_true_rows_and_predicted_columns(
    recorded: Recorded,
) -> None:
    path = f"{recorded.base}/trials/1/confusion-matrix"
    assert recorded.api.get(path) == recorded.api.get(path, split="validation", head="", kind="")
    assert recorded.api.get(path) == {
        "labels": LABELS,
        "matrix": [[5, 0, 2], [0, 7, 0], [0, 0, 0]],
        "split": "validation",
        "head": "label",
        "kind": "multiclass",
        "unit": "rows",
        "rows": 14,
    }


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("image/avif,image/webp,image/*,*/*;q=0.8", "image/svg+xml"),
        ("text/csv;q=0.3, application/json;q=0.9", "application/json"),
        ("text/html, text/*;q=0.9, */*;q=0.1", "text/csv; charset=utf-8"),
        ("application/json;q=0, */*", "text/csv; charset=utf-8"),
    ],
)
def test_accept_chooses_the_form_of_the_matrix(
    recorded: Recorded, accept: str | None, media_type: str
) -> None:
    headers = {"accept": accept} if accept else {}
    answer = recorded.api.client.get(f"{recorded.base}/trials/1/confusion-matrix", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["vary"] == "Accept"


def test_a_form_that_does_not_exist_is_406(recorded: Recorded) -> None:
    path = f"{recorded.base}/trials/1/confusion-matrix"
    answer = recorded.api.client.get(path, headers={"accept": "image/png"})
    assert (answer.status_code, answer.json()["error"]) == (406, "not_acceptable")


def test_the_csv_form_reads_back_as_the_matrix(recorded: Recorded) -> None:
    path = f"{recorded.base}/trials/1/confusion-matrix?format=csv"
    text = recorded.api.client.get(path, headers={"accept": "image/png"}).text
    assert list(csv.reader(io.StringIO(text))) == [
        ["true \\ predicted", *LABELS],
        ["bill", "5", "0", "2"],
        ["login", "0", "7", "0"],
        ["money", "0", "0", "0"],
    ]


def test_the_svg_form_is_an_image_that_cannot_run_scripts(recorded: Recorded) -> None:
    answer = recorded.api.client.get(f"{recorded.base}/trials/1/confusion-matrix?format=svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    root = ElementTree.fromstring(answer.text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "tickets, trial 1, validation" in answer.text


def test_files_of_the_current_attempt_are_listed_and_downloaded(recorded: Recorded) -> None:
    recorded.add_artifact("model.zip", b"old model", attempt=1)
    sha256 = recorded.add_artifact("model.zip", b"the model")
    recorded.add_artifact("predictions.csv", b"row,true,predicted,probability\n")
    recorded.add_artifact("train.log", b"epoch 1\n")
    listed = recorded.api.get(f"{recorded.base}/trials/1/artifacts")["items"]
    assert [item["name"] for item in listed] == ["model.zip", "predictions.csv", "train.log"]
    assert listed[0] == {
        "name": "model.zip",
        "sha256": sha256,
        "bytes": 9,
        "url": f"{recorded.base}/trials/1/artifacts/model.zip",
        "created_at": "2026-05-01T12:00:00.000Z",
    }
    get = recorded.api.client.get
    model = get(listed[0]["url"])
    assert (model.content, model.headers["etag"]) == (b"the model", f'"{sha256}"')
    assert "attachment" in model.headers["content-disposition"]
    assert get(f"{recorded.base}/trials/1/predictions").text.startswith("row,true")
    assert get(f"{recorded.base}/trials/1/log").text == "epoch 1\n"
    best = get(f"{recorded.base}/best/model")
    assert best.content == b"the model"
    assert 'filename="tickets-trial-1.zip"' in best.headers["content-disposition"]


def test_a_download_resumes_where_it_broke_off(recorded: Recorded) -> None:
    recorded.add_artifact("model.zip", b"0123456789")
    path = f"{recorded.base}/trials/1/artifacts/model.zip"
    answer = recorded.api.client.get(path, headers={"range": "bytes=4-"})
    assert (answer.status_code, answer.content) == (206, b"456789")


def test_a_file_that_is_gone_from_the_disk_is_404_and_says_so(recorded: Recorded) -> None:
    recorded.add_artifact("train.log", b"x")
    recorded.api.context.folders.artifact(recorded.trial_id, 2, "train.log").unlink()
    answer = recorded.api.client.get(f"{recorded.base}/trials/1/log")
    assert (answer.status_code, answer.json()["error"]) == (404, "file_gone")


def test_a_deleted_study_is_not_shown(recorded: Recorded) -> None:
    with recorded.api.context.database.transaction() as session:
        session.get_one(Study, recorded.study).deleted_at = NOW
    assert recorded.api.client.get(recorded.base).status_code == 404
    assert recorded.api.get("/v1/studies")["items"] == []
