"""Studies, trials and schedules in hand, against a scripted server."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from scripted_server import Handler, Script, ok, packed_model, study_body, trial_body

from studies import AsyncClient, Client, StudySpec
from studies.client import UnreachableError, WaitTimeoutError
from studies.handles import extra as extra_module
from studies.handles.study import AsyncStudy, Study

BEST = {
    "number": 3,
    "value": 0.91234,
    "params": {"learning_rate": 1e-4, "batch_size": 16},
    "metrics": {"macro_f1": 0.91234},
}
SPEC = StudySpec(name="tickets", dataset="d1")
MATRIX = {
    "labels": ["bug", "wish"],
    "matrix": [[8, 2], [0, 0]],
    "split": "validation",
    "head": "label",
    "kind": "multiclass",
    "unit": "rows",
    "rows": 10,
}


def client_of(handler: Handler) -> Client:
    transport = httpx.MockTransport(handler)
    return Client("http://server", "k", transport=transport, sleep=lambda _: None)


async def no_sleep(_: float) -> None:
    return None


def async_client_of(handler: Handler) -> AsyncClient:
    transport = httpx.MockTransport(handler)
    return AsyncClient("http://server", "k", transport=transport, sleep=no_sleep)


def study_of(*answers: httpx.Response, **changes: Any) -> tuple[Study, Script]:
    """A study in hand, and the script that its calls are answered from."""
    script = Script(ok(study_body(**changes)), *answers)
    return client_of(script).study("s1"), script


def test_a_submitted_study_is_waited_for_and_is_its_own_answer() -> None:
    script = Script(
        httpx.Response(201, json=study_body(state="queued")),
        ok(study_body(state="running")),
        ok(study_body(state="completed", best=BEST)),
    )
    seen: list[str] = []
    submitted = client_of(script).submit(SPEC)
    done = submitted.wait(progress=lambda study: seen.append(study.state))
    assert done is submitted
    assert (done.state, done.best and done.best.number) == ("completed", 3)
    assert seen == ["running", "completed"]


def test_the_same_with_await() -> None:
    async def search() -> AsyncStudy:
        script = Script(
            httpx.ReadTimeout("lost"),
            httpx.Response(201, json=study_body(state="queued")),
            ok(study_body(state="completed", best=BEST)),
            ok({"items": [trial_body(0)], "next_cursor": None}),
            ok(MATRIX),
        )
        async with async_client_of(script) as client:
            study = await (await client.submit(SPEC)).wait()
            keys = {request.headers.get("idempotency-key") for request in script.requests[:2]}
            assert len(keys) == 1
            assert len(await study.trials()) == 1
            assert study.best is not None
            assert (await study.best.confusion_matrix()).labels == ("bug", "wish")
            return study

    assert asyncio.run(search()).state == "completed"


def test_a_wait_that_takes_too_long_leaves_the_study_as_it_was_last_seen() -> None:
    study, _ = study_of(ok(study_body(state="running", started_at="2026-01-01T00:00:00Z")))
    with pytest.raises(WaitTimeoutError):
        study.wait(timeout_s=0)
    assert study.answer.started_at is not None


def test_a_study_tells_what_happens_to_it() -> None:
    event = {
        "id": 7,
        "type": "study.completed",
        "study_id": "s1",
        "study": "tickets",
        "trial": None,
        "data": {"best": 3},
        "created_at": "2026-01-01T00:00:00Z",
    }
    frame = f"id: 7\nevent: study.completed\ndata: {json.dumps(event)}\n\n"
    study, script = study_of(httpx.Response(200, text=frame))
    assert [(event.id, event.data) for event in study.events(after=0)] == [(7, {"best": 3})]
    asked = script.requests[-1].url
    assert (asked.path, asked.params["after"]) == ("/v1/studies/s1/events", "0")

    async def types() -> list[str]:
        script = Script(ok(study_body()), httpx.Response(200, text=frame))
        async with async_client_of(script) as client:
            study = await client.study("s1")
            return [event.type async for event in study.events(last=1)]

    assert asyncio.run(types()) == ["study.completed"]


def test_a_study_without_a_completed_trial_has_no_best() -> None:
    study, _ = study_of()
    assert study.best is None


def test_every_order_to_a_study_names_it_and_takes_its_answer() -> None:
    study, script = study_of(
        *[ok(study_body(state=state)) for state in ("paused", "running", "queued", "cancelled")],
        httpx.Response(204),
    )
    states = [
        study.pause("preempt").state,
        study.resume().state,
        study.extend(5).state,
        study.cancel().state,
    ]
    study.delete()
    assert states == ["paused", "running", "queued", "cancelled"]
    assert [(request.method, request.url.path) for request in script.requests[1:]] == [
        ("POST", "/v1/studies/s1/pause"),
        ("POST", "/v1/studies/s1/resume"),
        ("POST", "/v1/studies/s1/extend"),
        ("POST", "/v1/studies/s1/cancel"),
        ("DELETE", "/v1/studies/s1"),
    ]


def test_ten_thousand_trials_come_page_by_page_into_one_frame() -> None:
    pages: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/trials"):
            return ok(study_body())
        pages.append(request.url.params.get("cursor"))
        first = int(pages[-1] or 0)
        last = first + int(request.url.params["limit"])
        cursor = None if last >= 10_000 else str(last)
        items = [trial_body(number) for number in range(first, last)]
        return ok({"items": items, "next_cursor": cursor})

    frame = client_of(answer).study("s1").trials()
    assert len(pages) == 20
    assert list(frame.index) == list(range(10_000))


def frame_of(*trials: dict[str, Any]) -> pd.DataFrame:
    study, _ = study_of(ok({"items": list(trials), "next_cursor": None}))
    return study.trials()


def test_a_column_is_of_the_same_type_whether_or_not_something_is_missing() -> None:
    settings = {"learning_rate": 1e-4, "batch_size": 16, "lr_schedule": "linear", "flag": True}
    queued: dict[str, Any] = {
        **dict.fromkeys(("params", "value", "best_epoch", "epoch", "started_at", "finished_at")),
        "state": "queued",
        "metrics": {},
    }
    whole = frame_of(trial_body(0, params=settings))
    gaps = frame_of(trial_body(0, params=settings), trial_body(1, **queued))
    assert dict(whole.dtypes) == dict(gaps.dtypes)
    assert gaps.index.name == "number"
    assert {name: str(gaps[name].dtype) for name in gaps if name.startswith("params_")} == {
        "params_learning_rate": "float64",
        "params_batch_size": "Int64",
        "params_lr_schedule": "string",
        "params_flag": "boolean",
    }
    assert gaps["duration_s"].iloc[0] == 90
    assert str(gaps["started_at"].dtype) == "datetime64[us, UTC]"
    missing = gaps.loc[1].drop(["state", "attempt"])
    assert missing.isna().all()


def test_a_setting_and_a_metric_of_one_name_are_two_columns() -> None:
    frame = frame_of(trial_body(0, params={"loss": "focal"}, metrics={"loss": 0.25}))
    assert (frame["params_loss"].iloc[0], frame["metrics_loss"].iloc[0]) == ("focal", 0.25)


def test_a_failed_trial_says_why_and_a_study_without_trials_is_an_empty_frame() -> None:
    error = {"code": "out_of_memory", "detail": "One example does not fit."}
    assert frame_of(trial_body(0, state="failed", error=error))["error"].iloc[0] == "out_of_memory"
    assert len(frame_of()) == 0
    assert "state" in frame_of()


def test_values_of_several_kinds_share_a_column_as_they_are() -> None:
    params = ({"layers": 2}, {"layers": "all"}, {"layers": 0.5})
    frame = frame_of(*[trial_body(number, params=param) for number, param in enumerate(params)])
    assert list(frame["params_layers"]) == [2, "all", 0.5]


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(extra_module, "import_module", absent)
    with pytest.raises(ModuleNotFoundError, match=r"need pandas: pip install 'bertune\[notebook\]"):
        frame_of(trial_body(0))


def test_the_client_brings_in_no_numpy_pandas_or_matplotlib() -> None:
    code = (
        "import sys; from studies import AsyncClient, Client, ScheduleSpec, StudySpec;"
        "heavy = {'numpy', 'pandas', 'matplotlib', 'optuna', 'torch'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_matrix_is_asked_for_by_split_kind_label_and_head() -> None:
    study, script = study_of(ok(MATRIX), best=BEST)
    assert study.best is not None
    matrix = study.best.confusion_matrix("test", kind="per_class", label="bug", head="h")
    assert script.requests[1].url.path == "/v1/studies/s1/trials/3/confusion-matrix"
    assert dict(script.requests[1].url.params) == {
        "split": "test",
        "kind": "per_class",
        "label": "bug",
        "head": "h",
    }
    assert matrix.title == "tickets, trial 3, test: h: bug"
    assert np.array_equal(matrix.matrix, [[8, 2], [0, 0]])


def test_a_trial_is_fetched_by_its_number_and_tells_all(tmp_path: Path) -> None:
    whole = {**trial_body(2), "epochs": [], "per_class": [], "attempts": [], "worker": None}
    study, script = study_of(ok(whole), ok(whole), httpx.Response(200, content=packed_model()))
    trial = study.trial(2)
    assert (trial.value, trial.details().state) == (0.5, "completed")
    assert (trial.download(tmp_path / "model") / "config.json").is_file()
    assert script.requests[3].url.path == "/v1/studies/s1/trials/2/artifacts/model.zip"


def test_what_notebooks_show_of_a_study_is_text_whatever_it_is_called() -> None:
    name = "<script>alert(1)</script>"
    error = {"code": "all_failed", "detail": "<b>No</b>"}
    study, _ = study_of(name=name, best=BEST, error=error, test={"metrics": {"f": 1}, "opened": 1})
    assert study.best is not None
    for shown in (study._repr_html_(), study.best._repr_html_()):
        assert "<script>" not in shown
        assert "&lt;script&gt;" in shown
    shown = study._repr_html_()
    assert "trial 3: macro_f1 0.9123" in shown
    assert "all_failed: &lt;b&gt;No&lt;/b&gt;" in shown
    assert "learning_rate 0.0001, batch_size 16" in shown
    assert "2 queued, 1 completed" in shown


def test_reading_or_listing_studies_gives_studies_and_the_plain_answers_are_at_hand() -> None:
    page = {"items": [study_body(), study_body(id="s2")], "next_cursor": None}
    client = client_of(Script(ok(page), ok(study_body())))
    assert [study.id for study in client.studies()] == ["s1", "s2"]
    assert client.api.study("s1").name == "tickets"
    assert client.api.server == "http://server"


def test_a_closed_client_is_closed_for_what_it_gave_out() -> None:
    script = Script(ok(study_body()), ok(study_body()))
    with client_of(script) as client:
        study = client.study("s1")
    with pytest.raises(RuntimeError, match="closed"):
        study.refresh()


def test_a_server_that_never_answers_is_named() -> None:
    with pytest.raises(UnreachableError, match="http://server"):
        client_of(Script(*[httpx.ConnectError("down")] * 4)).submit(SPEC)


def schedule_body(**changes: Any) -> dict[str, Any]:
    spec = {"name": "nightly", "cron": "0 3 * * *", "study": {"name": "n", "dataset": "d"}}
    body = {
        "id": "c1",
        "spec": spec,
        "enabled": True,
        "next_fire_time": "2026-01-02T03:00:00Z",
        "upcoming": [],
        "last_run": None,
        "champion": None,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    }
    return {**body, **changes}


def test_a_schedule_in_hand_is_paused_changed_and_removed() -> None:
    script = Script(
        httpx.Response(201, json=schedule_body()),
        ok(schedule_body(enabled=False, next_fire_time=None)),
        ok(schedule_body()),
        ok(schedule_body()),
        httpx.Response(204),
    )
    schedule = client_of(script).add_schedule({"name": "nightly"})
    assert "0 3 * * *" in schedule._repr_html_()
    assert not schedule.pause().enabled
    assert schedule.resume().enabled
    schedule.change(grace_s=5)
    schedule.delete()
    sent = [(request.method, request.content) for request in script.requests[1:]]
    assert sent == [
        ("PATCH", b'{"enabled":false}'),
        ("PATCH", b'{"enabled":true}'),
        ("PATCH", b'{"grace_s":5}'),
        ("DELETE", b""),
    ]
