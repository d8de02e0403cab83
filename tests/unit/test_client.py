"""The Python client against a scripted server."""

import io
import json
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from studies.client import ApiError, Client, UnreachableError, WaitTimeoutError
from studies.spec import Grid, StudySpec

Handler = Callable[[httpx.Request], httpx.Response]


def study_body(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": "s1",
        "name": "tickets",
        "state": "running",
        "pause": None,
        "trials": {"completed": 1, "queued": 2},
        "best": None,
        "test": None,
        "progress": {"done": 1, "total": 3, "eta_s": None},
        "disk_bytes": 0,
        "error": None,
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "finished_at": None,
        "labels": {},
        "dataset": "d1",
        "model": "scratch:tiny",
        "task": "single_label",
        "objective": {"metric": "macro_f1", "direction": "maximize"},
        "spec": {},
    }
    return {**body, **changes}


def error_body(code: str, detail: str = "No.") -> dict[str, Any]:
    return {"error": code, "detail": detail, "where": ["body", "seed"]}


def client_of(handler: Handler, slept: list[float] | None = None) -> Client:
    sleeps = slept if slept is not None else []
    return Client("http://server", "k", transport=httpx.MockTransport(handler), sleep=sleeps.append)


class Script:
    """Answers requests from a list, in order; an exception in it is raised instead."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers: Iterator[httpx.Response | Exception] = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ok(body: Any) -> httpx.Response:
    return httpx.Response(200, json=body)


def test_importing_the_package_loads_no_http_client_and_the_client_no_optuna_or_torch() -> None:
    code = (
        "import sys, studies; assert 'httpx' not in sys.modules;"
        "from studies import Client, StudySpec;"
        "heavy = {'optuna', 'torch', 'transformers', 'fastapi', 'sqlalchemy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_key_comes_from_the_argument_then_the_variable_then_the_admin_key_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "admin.key").write_text("from-file\n")
    monkeypatch.setenv("BERTUNE_HOME", str(tmp_path))
    monkeypatch.setenv("BERTUNE_KEY", "from-variable")
    sent: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization"))
        return ok({"items": [], "next_cursor": None})

    transport = httpx.MockTransport(answer)
    Client("http://server", "argument", transport=transport).workers()
    Client("http://server", transport=transport).workers()
    monkeypatch.delenv("BERTUNE_KEY")
    Client("http://server", transport=transport).workers()
    monkeypatch.setenv("BERTUNE_HOME", str(tmp_path / "elsewhere"))
    Client("http://server", transport=transport).workers()

    assert sent == ["Bearer argument", "Bearer from-variable", "Bearer from-file", None]


def test_a_refused_connection_names_the_address_and_what_starts_a_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnreachableError) as raised:
            Client(address, "k", sleep=lambda _: None).workers()
    assert address in str(raised.value)
    assert "bertune up" in str(raised.value)


def test_a_read_is_repeated_while_the_server_is_briefly_unavailable() -> None:
    slept: list[float] = []
    script = Script(httpx.Response(503), httpx.ReadError("cut"), ok(study_body()))
    assert client_of(script, slept).study("s1").name == "tickets"
    assert len(script.requests) == 3
    assert slept == [0.2, 0.5]


def test_a_read_gives_up_after_four_tries() -> None:
    script = Script(*[httpx.ConnectError("down")] * 5)
    with pytest.raises(UnreachableError):
        client_of(script).study("s1")
    assert len(script.requests) == 4


def test_a_submission_whose_answer_was_lost_is_repeated_under_the_same_idempotency_key() -> None:
    script = Script(httpx.ReadTimeout("lost"), httpx.Response(201, json=study_body()))
    study = client_of(script).submit(StudySpec(name="tickets", dataset="d1"))
    keys = [request.headers["idempotency-key"] for request in script.requests]
    assert study.id == "s1"
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_two_submissions_carry_different_idempotency_keys() -> None:
    script = Script(*[httpx.Response(201, json=study_body())] * 2)
    client = client_of(script)
    client.submit({"name": "a", "dataset": "d"})
    client.submit({"name": "a", "dataset": "d"})
    first, second = (request.headers["idempotency-key"] for request in script.requests)
    assert first != second


def test_a_submitted_spec_is_read_back_as_the_same_spec() -> None:
    script = Script(httpx.Response(201, json=study_body()))
    spec = StudySpec(name="tickets", dataset="d1", sampler=Grid())
    client_of(script).submit(spec)
    assert StudySpec.model_validate_json(script.requests[0].content) == spec


def test_a_cancellation_is_repeated_only_when_it_never_left() -> None:
    unsent = Script(httpx.ConnectError("down"), ok(study_body(state="cancelled")))
    assert client_of(unsent).cancel("s1").state == "cancelled"

    lost = Script(httpx.ReadError("cut"), ok(study_body(state="cancelled")))
    with pytest.raises(UnreachableError):
        client_of(lost).cancel("s1")
    assert len(lost.requests) == 1


def test_pausing_names_its_mode_and_is_repeated_with_resuming_since_twice_is_as_once() -> None:
    paused = study_body(state="paused", pause="preempt")
    script = Script(httpx.ReadError("cut"), ok(paused), httpx.Response(503), ok(study_body()))
    client = client_of(script)
    assert client.pause("s1", "preempt").pause == "preempt"
    assert client.resume("s1").state == "running"
    sent = [(request.url.path, request.content) for request in script.requests]
    assert sent[:2] == [("/v1/studies/s1/pause", b'{"mode":"preempt"}')] * 2
    assert sent[2:] == [("/v1/studies/s1/resume", b"")] * 2


def test_an_extension_whose_answer_was_lost_is_repeated_under_the_same_idempotency_key() -> None:
    script = Script(httpx.ReadTimeout("lost"), ok(study_body()), ok(study_body()))
    client = client_of(script)
    client.extend("s1", 5)
    client.extend("s1", 5)
    keys = [request.headers["idempotency-key"] for request in script.requests]
    assert keys[0] == keys[1] != keys[2]
    assert script.requests[0].url.path == "/v1/studies/s1/extend"
    assert json.loads(script.requests[0].content) == {"add_trials": 5}


def test_an_extension_takes_the_callers_own_key() -> None:
    script = Script(ok(study_body()))
    client_of(script).extend("s1", 1, idempotency_key="nightly-7")
    assert script.requests[0].headers["idempotency-key"] == "nightly-7"


def test_a_deletion_is_repeated_only_when_it_never_left() -> None:
    unsent = Script(httpx.ConnectError("down"), httpx.Response(204))
    client_of(unsent).delete("s1")
    assert [request.method for request in unsent.requests] == ["DELETE"] * 2
    assert unsent.requests[1].url.path == "/v1/studies/s1"

    # Sent again it would be told that there is no such study, which is not what happened.
    lost = Script(httpx.ReadError("cut"), httpx.Response(404, json=error_body("unknown_study")))
    with pytest.raises(UnreachableError):
        client_of(lost).delete("s1")


def test_a_repeated_upload_sends_the_whole_file_again(tmp_path: Path) -> None:
    file = tmp_path / "tickets.csv"
    file.write_text("text,label\nhello,a\n")
    script = Script(httpx.Response(502), httpx.Response(422, json=error_body("one_class")))
    with pytest.raises(ApiError):
        client_of(script).upload_dataset(file, options={"label": "label"}, name="t")
    bodies = [request.content for request in script.requests]
    assert len(bodies) == 2
    for body in bodies:
        assert b"hello,a" in body
        assert b'filename="tickets.csv"' in body
        assert b'{"label": "label"}' in body


def test_an_error_answer_becomes_an_exception_with_its_code_and_place() -> None:
    script = Script(httpx.Response(422, json=error_body("invalid_value", "seed must be small.")))
    with pytest.raises(ApiError) as raised:
        client_of(script).validate({"name": "a"})
    error = raised.value
    assert (error.status, error.code, error.where) == (422, "invalid_value", ("body", "seed"))
    assert str(error) == "seed must be small. (seed)"


def test_an_answer_that_is_no_bertune_answer_is_an_error_and_not_data() -> None:
    for response in (httpx.Response(200, text="<html>"), httpx.Response(404, text="nginx")):
        with pytest.raises(ApiError) as raised:
            client_of(Script(response)).trial("s1", 0)
        assert raised.value.code == "not_bertune"


def test_lists_follow_the_cursor_to_the_last_page() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        pages = {
            None: {"items": [study_body(id="a")], "next_cursor": "2"},
            "2": {"items": [study_body(id="b"), study_body(id="c")], "next_cursor": None},
        }
        return ok(pages[request.url.params.get("cursor")])

    assert [study.id for study in client_of(answer).studies()] == ["a", "b", "c"]
    assert [study.id for study in client_of(answer).studies(limit=2)] == ["a", "b"]


def test_a_study_is_found_by_the_newest_of_its_name() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/studies":
            items = [study_body(id="c", name="x"), study_body(id="b"), study_body(id="a")]
            return ok({"items": items, "next_cursor": None})
        return httpx.Response(404, json=error_body("not_found"))

    client = client_of(answer)
    assert client.study("tickets").id == "b"
    with pytest.raises(ApiError, match="No study has the id or name 'nope'"):
        client.study("nope")


def test_a_name_with_a_slash_stays_one_part_of_the_path() -> None:
    script = Script(ok(study_body()))
    client_of(script).study("a/../b c")
    assert script.requests[0].url.raw_path == b"/v1/studies/a%2F..%2Fb%20c"


def test_waiting_reports_changes_only_and_ends_with_the_study() -> None:
    done = {"done": 2, "total": 3, "eta_s": None}
    bodies = [
        study_body(),
        study_body(),
        study_body(progress=done),
        study_body(state="completed", progress=done),
    ]
    seen: list[str] = []
    looks: list[str] = []
    ended = client_of(Script(*map(ok, bodies))).wait(
        "s1",
        on_change=lambda study: seen.append(f"{study.state} {study.progress.done}"),
        on_look=lambda study: looks.append(study.state),
    )
    assert ended.state == "completed"
    assert seen == ["running 1", "running 2", "completed 2"]
    assert looks == ["running", "running", "running", "completed"]


def test_waiting_outlasts_a_pause() -> None:
    paused = study_body(state="paused", pause="drain")
    script = Script(ok(paused), ok(paused), ok(study_body()), ok(study_body(state="completed")))
    seen: list[str] = []
    client_of(script).wait("s1", on_change=lambda study: seen.append(study.state))
    assert seen == ["paused", "running", "completed"]


def test_waiting_outlives_a_restart_of_the_server() -> None:
    down = [httpx.ConnectError("down")] * 6  # more than one call's own tries
    script = Script(ok(study_body()), *down, ok(study_body(state="failed")))
    assert client_of(script).wait("s1").state == "failed"


def test_waiting_for_a_server_that_never_answered_fails_at_once() -> None:
    script = Script(*[httpx.ConnectError("down")] * 4)
    with pytest.raises(UnreachableError):
        client_of(script).wait("s1")


def test_waiting_ends_with_an_error_after_its_time() -> None:
    script = Script(ok(study_body()))
    with pytest.raises(WaitTimeoutError, match="tickets is still running"):
        client_of(script).wait("s1", timeout_s=0)


def packed_model() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", json.dumps({"model_type": "bert"}))
    return buffer.getvalue()


def test_the_best_model_is_unpacked_into_a_new_folder(tmp_path: Path) -> None:
    client = client_of(Script(httpx.Response(200, content=packed_model())))
    folder = client.download_best("s1", tmp_path / "deep" / "model")
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "bert"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_best_model_stays_packed_when_a_zip_file_is_named(tmp_path: Path) -> None:
    client = client_of(Script(httpx.Response(200, content=packed_model())))
    assert client.download_best("s1", tmp_path / "m.zip").read_bytes() == packed_model()


def test_a_download_never_writes_over_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    script = Script()
    with pytest.raises(FileExistsError):
        client_of(script).download_best("s1", tmp_path / "model")
    assert script.requests == []


def test_a_download_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield packed_model()[:20]
        raise httpx.ReadError("cut")

    client = client_of(Script(httpx.Response(200, content=broken())))
    with pytest.raises(UnreachableError):
        client.download_best("s1", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
