"""The Python client against a scripted server."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from pydantic import ValidationError
from scripted_server import Handler, Script, error_body, ok, packed_model, study_body

from studies.api import Api, ApiError, AsyncApi, UnreachableError, WaitTimeoutError
from studies.spec import Grid, StudySpec
from studies.wire.studies import StudyAnswer


class AwaitedApi:
    """An `AsyncApi` whose every call is awaited on an event loop of its own."""

    def __init__(self, api: AsyncApi) -> None:
        self._api = api

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: asyncio.run(getattr(self._api, name)(*args, **kwargs))


ApiOf = Callable[..., Api]
"""``api_of(handler, slept)``: an API whose server is ``handler``, and which notes in ``slept`` for
how long it would have slept."""


@pytest.fixture(params=["blocking", "awaited"])
def api_of(request: pytest.FixtureRequest) -> ApiOf:
    def blocking(handler: Handler, slept: list[float] | None = None) -> Api:
        sleeps = slept if slept is not None else []
        transport = httpx.MockTransport(handler)
        return Api("http://server", "k", transport=transport, sleep=sleeps.append)

    def awaited(handler: Handler, slept: list[float] | None = None) -> Api:
        async def sleep(seconds: float) -> None:
            if slept is not None:
                slept.append(seconds)

        transport = httpx.MockTransport(handler)
        api = AsyncApi("http://server", "k", transport=transport, sleep=sleep)
        return cast(Api, AwaitedApi(api))

    return blocking if request.param == "blocking" else awaited


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
    Api("http://server", "argument", transport=transport).workers()
    Api("http://server", transport=transport).workers()
    monkeypatch.delenv("BERTUNE_KEY")
    Api("http://server", transport=transport).workers()
    monkeypatch.setenv("BERTUNE_HOME", str(tmp_path / "elsewhere"))
    Api("http://server", transport=transport).workers()

    assert sent == ["Bearer argument", "Bearer from-variable", "Bearer from-file", None]


def test_a_refused_connection_names_the_address_and_what_starts_a_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnreachableError) as raised:
            Api(address, "k", sleep=lambda _: None).workers()
    assert address in str(raised.value)
    assert "bertune up" in str(raised.value)


def test_a_read_is_repeated_while_the_server_is_briefly_unavailable(api_of: ApiOf) -> None:
    slept: list[float] = []
    script = Script(httpx.Response(503), httpx.ReadError("cut"), ok(study_body()))
    assert api_of(script, slept).study("s1").name == "tickets"
    assert len(script.requests) == 3
    assert slept == [0.2, 0.5]


def test_a_read_gives_up_after_four_tries(api_of: ApiOf) -> None:
    script = Script(*[httpx.ConnectError("down")] * 5)
    with pytest.raises(UnreachableError):
        api_of(script).study("s1")
    assert len(script.requests) == 4


def test_a_submission_whose_answer_was_lost_is_repeated_under_the_same_idempotency_key(
    api_of: ApiOf,
) -> None:
    script = Script(httpx.ReadTimeout("lost"), httpx.Response(201, json=study_body()))
    study = api_of(script).submit(StudySpec(name="tickets", dataset="d1"))
    keys = [request.headers["idempotency-key"] for request in script.requests]
    assert study.id == "s1"
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_two_submissions_carry_different_idempotency_keys(api_of: ApiOf) -> None:
    script = Script(*[httpx.Response(201, json=study_body())] * 2)
    client = api_of(script)
    client.submit({"name": "a", "dataset": "d"})
    client.submit({"name": "a", "dataset": "d"})
    first, second = (request.headers["idempotency-key"] for request in script.requests)
    assert first != second


def test_a_submitted_spec_is_read_back_as_the_same_spec(api_of: ApiOf) -> None:
    script = Script(httpx.Response(201, json=study_body()))
    spec = StudySpec(name="tickets", dataset="d1", sampler=Grid())
    api_of(script).submit(spec)
    assert StudySpec.model_validate_json(script.requests[0].content) == spec


def test_a_cancellation_is_repeated_only_when_it_never_left(api_of: ApiOf) -> None:
    unsent = Script(httpx.ConnectError("down"), ok(study_body(state="cancelled")))
    assert api_of(unsent).cancel("s1").state == "cancelled"

    lost = Script(httpx.ReadError("cut"), ok(study_body(state="cancelled")))
    with pytest.raises(UnreachableError):
        api_of(lost).cancel("s1")
    assert len(lost.requests) == 1


def test_pausing_names_its_mode_and_is_repeated_with_resuming_since_twice_is_as_once(
    api_of: ApiOf,
) -> None:
    paused = study_body(state="paused", pause="preempt")
    script = Script(httpx.ReadError("cut"), ok(paused), httpx.Response(503), ok(study_body()))
    client = api_of(script)
    assert client.pause("s1", "preempt").pause == "preempt"
    assert client.resume("s1").state == "running"
    sent = [(request.url.path, request.content) for request in script.requests]
    assert sent[:2] == [("/v1/studies/s1/pause", b'{"mode":"preempt"}')] * 2
    assert sent[2:] == [("/v1/studies/s1/resume", b"")] * 2


def test_an_extension_whose_answer_was_lost_is_repeated_under_the_same_idempotency_key(
    api_of: ApiOf,
) -> None:
    script = Script(httpx.ReadTimeout("lost"), ok(study_body()), ok(study_body()))
    client = api_of(script)
    client.extend("s1", 5)
    client.extend("s1", 5)
    keys = [request.headers["idempotency-key"] for request in script.requests]
    assert keys[0] == keys[1] != keys[2]
    assert script.requests[0].url.path == "/v1/studies/s1/extend"
    assert json.loads(script.requests[0].content) == {"add_trials": 5}


def test_an_extension_takes_the_callers_own_key(api_of: ApiOf) -> None:
    script = Script(ok(study_body()))
    api_of(script).extend("s1", 1, idempotency_key="nightly-7")
    assert script.requests[0].headers["idempotency-key"] == "nightly-7"


def test_a_deletion_is_repeated_only_when_it_never_left(api_of: ApiOf) -> None:
    unsent = Script(httpx.ConnectError("down"), httpx.Response(204))
    api_of(unsent).delete("s1")
    assert [request.method for request in unsent.requests] == ["DELETE"] * 2
    assert unsent.requests[1].url.path == "/v1/studies/s1"

    # Sent again it would be told that there is no such study, which is not what happened.
    lost = Script(httpx.ReadError("cut"), httpx.Response(404, json=error_body("unknown_study")))
    with pytest.raises(UnreachableError):
        api_of(lost).delete("s1")


def test_a_repeated_upload_sends_the_whole_file_again(api_of: ApiOf, tmp_path: Path) -> None:
    file = tmp_path / "tickets.csv"
    file.write_text("text,label\nhello,a\n")
    script = Script(httpx.Response(502), httpx.Response(422, json=error_body("one_class")))
    with pytest.raises(ApiError):
        api_of(script).upload_dataset(file, options={"label": "label"}, name="t")
    bodies = [request.content for request in script.requests]
    assert len(bodies) == 2
    for body in bodies:
        assert b"hello,a" in body
        assert b'filename="tickets.csv"' in body
        assert b'{"label": "label"}' in body


def test_an_upload_tells_how_many_bytes_of_all_files_went(api_of: ApiOf, tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_bytes(b"x" * 200_000)
    test.write_bytes(b"y" * 1000)
    script = Script(httpx.Response(502), ok(dataset_body()))
    told: list[tuple[int, int | None]] = []
    api_of(script).upload_dataset(train, test=test, on_bytes=lambda *news: told.append(news))
    once = [(size, 201_000) for size in (65_536, 131_072, 196_608, 200_000, 201_000)]
    assert told == once * 2  # the first try failed
    assert script.requests[1].content.count(b"x" * 200_000) == 1


def test_a_download_tells_how_many_bytes_came(api_of: ApiOf, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    script = Script(httpx.Response(200, content=packed_model()))
    api_of(script).download_best("s1", tmp_path / "m.zip", lambda *news: told.append(news))
    size = (tmp_path / "m.zip").stat().st_size
    assert told[-1] == (size, size)


def test_a_hub_data_set_is_asked_for_by_name_and_its_answer_tells_the_commit(
    api_of: ApiOf,
) -> None:
    script = Script(ok(dataset_body()))
    found = api_of(script).add_hub_dataset(
        "org/name", splits={"validation": "dev"}, options={"text": "sentence"}
    )
    assert json.loads(script.requests[0].content) == {
        "hub": "org/name",
        "config": None,
        "revision": "main",
        "splits": {"validation": "dev"},
        "options": {"text": "sentence"},
        "name": None,
    }
    assert found.origin is not None
    assert found.origin.commit == "0" * 40
    with pytest.raises(ValidationError):
        api_of(script).add_hub_dataset("no name")


def dataset_body() -> dict[str, Any]:
    return {
        "id": "d1",
        "name": "org/name",
        "task": "single_label",
        "columns": {"text_a": "sentence", "text_b": None, "label": "label"},
        "rows": {"train": 2},
        "labels": ["x", "y"],
        "label_counts": {"train": {"x": 1, "y": 1}},
        "missing": {"train": {"text": 0, "label": 0}},
        "duplicates": {"train": 0},
        "overlap": {},
        "words": {"max": 3.0},
        "files": {"train": {"sha256": "0", "bytes": 1}},
        "options": {"text": "sentence"},
        "origin": {
            "hub": "org/name",
            "config": "default",
            "revision": "main",
            "commit": "0" * 40,
            "splits": {"train": "train"},
            "left_out": {},
        },
        "created_at": "2026-01-01T00:00:00Z",
    }


def test_an_error_answer_becomes_an_exception_with_its_code_and_place(api_of: ApiOf) -> None:
    script = Script(httpx.Response(422, json=error_body("invalid_value", "seed must be small.")))
    with pytest.raises(ApiError) as raised:
        api_of(script).validate({"name": "a"})
    error = raised.value
    assert (error.status, error.code, error.where) == (422, "invalid_value", ("body", "seed"))
    assert str(error) == "seed must be small. (seed)"


def test_an_answer_that_is_no_bertune_answer_is_an_error_and_not_data(api_of: ApiOf) -> None:
    for response in (httpx.Response(200, text="<html>"), httpx.Response(404, text="nginx")):
        with pytest.raises(ApiError) as raised:
            api_of(Script(response)).trial("s1", 0)
        assert raised.value.code == "not_bertune"


def test_lists_follow_the_cursor_to_the_last_page(api_of: ApiOf) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        pages = {
            None: {"items": [study_body(id="a")], "next_cursor": "2"},
            "2": {"items": [study_body(id="b"), study_body(id="c")], "next_cursor": None},
        }
        return ok(pages[request.url.params.get("cursor")])

    assert [study.id for study in api_of(answer).studies()] == ["a", "b", "c"]
    assert [study.id for study in api_of(answer).studies(limit=2)] == ["a", "b"]


def test_a_study_is_found_by_the_newest_of_its_name(api_of: ApiOf) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/studies":
            items = [study_body(id="c", name="x"), study_body(id="b"), study_body(id="a")]
            return ok({"items": items, "next_cursor": None})
        return httpx.Response(404, json=error_body("not_found"))

    client = api_of(answer)
    assert client.study("tickets").id == "b"
    with pytest.raises(ApiError, match="No study has the id or name 'nope'"):
        client.study("nope")


def test_a_name_with_a_slash_stays_one_part_of_the_path(api_of: ApiOf) -> None:
    script = Script(ok(study_body()))
    api_of(script).study("a/../b c")
    assert script.requests[0].url.raw_path == b"/v1/studies/a%2F..%2Fb%20c"


def test_waiting_reports_changes_only_and_ends_with_the_study(api_of: ApiOf) -> None:
    done = {"done": 2, "total": 3, "eta_s": None}
    bodies = [
        study_body(),
        study_body(),
        study_body(progress=done),
        study_body(state="completed", progress=done),
    ]
    seen: list[str] = []
    looks: list[str] = []
    ended = api_of(Script(*map(ok, bodies))).wait(
        "s1",
        on_change=lambda study: seen.append(f"{study.state} {study.progress.done}"),
        on_look=lambda study: looks.append(study.state),
    )
    assert ended.state == "completed"
    assert seen == ["running 1", "running 2", "completed 2"]
    assert looks == ["running", "running", "running", "completed"]


def test_waiting_outlasts_a_pause(api_of: ApiOf) -> None:
    paused = study_body(state="paused", pause="drain")
    script = Script(ok(paused), ok(paused), ok(study_body()), ok(study_body(state="completed")))
    seen: list[str] = []
    api_of(script).wait("s1", on_change=lambda study: seen.append(study.state))
    assert seen == ["paused", "running", "completed"]


def test_waiting_outlives_a_restart_of_the_server(api_of: ApiOf) -> None:
    down = [httpx.ConnectError("down")] * 6  # more than one call's own tries
    script = Script(ok(study_body()), *down, ok(study_body(state="failed")))
    assert api_of(script).wait("s1").state == "failed"


def test_waiting_for_a_server_that_never_answered_fails_at_once(api_of: ApiOf) -> None:
    script = Script(*[httpx.ConnectError("down")] * 4)
    with pytest.raises(UnreachableError):
        api_of(script).wait("s1")


def test_waiting_ends_with_an_error_after_its_time(api_of: ApiOf) -> None:
    script = Script(ok(study_body()))
    with pytest.raises(WaitTimeoutError, match="tickets is still running"):
        api_of(script).wait("s1", timeout_s=0)


def test_the_best_model_is_unpacked_into_a_new_folder(api_of: ApiOf, tmp_path: Path) -> None:
    client = api_of(Script(httpx.Response(200, content=packed_model())))
    folder = client.download_best("s1", tmp_path / "deep" / "model")
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "bert"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_best_model_stays_packed_when_a_zip_file_is_named(
    api_of: ApiOf, tmp_path: Path
) -> None:
    client = api_of(Script(httpx.Response(200, content=packed_model())))
    assert client.download_best("s1", tmp_path / "m.zip").read_bytes() == packed_model()


def test_a_download_never_writes_over_what_is_there(api_of: ApiOf, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    script = Script()
    with pytest.raises(FileExistsError):
        api_of(script).download_best("s1", tmp_path / "model")
    assert script.requests == []


def test_an_empty_folder_takes_a_download(api_of: ApiOf, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    client = api_of(Script(httpx.Response(200, content=packed_model())))
    assert [path.name for path in client.download_best("s1", tmp_path / "model").iterdir()] == [
        "config.json"
    ]


def test_a_download_that_breaks_off_leaves_nothing(api_of: ApiOf, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield packed_model()[:20]
        raise httpx.ReadError("cut")

    async def broken_later() -> AsyncIterator[bytes]:
        for chunk in broken():
            yield chunk

    class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
        __iter__ = staticmethod(broken)
        __aiter__ = staticmethod(broken_later)

    client = api_of(Script(httpx.Response(200, stream=Broken())))
    with pytest.raises(UnreachableError):
        client.download_best("s1", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_listener_may_await_where_the_call_is_awaited() -> None:
    seen: list[str] = []

    async def listen(study: StudyAnswer) -> None:
        await asyncio.sleep(0)
        seen.append(study.state)

    async def wait() -> None:
        script = Script(ok(study_body()), ok(study_body(state="completed")))
        transport = httpx.MockTransport(script)
        async with AsyncApi("http://server", "k", transport=transport) as api:
            await api.wait("s1", on_change=listen, poll_s=0)

    asyncio.run(wait())
    assert seen == ["running", "completed"]


def test_other_tasks_run_while_a_study_is_waited_for_and_a_cancelled_wait_ends() -> None:
    async def race() -> None:
        transport = httpx.MockTransport(lambda _: ok(study_body()))
        async with AsyncApi("http://server", "k", transport=transport) as api:
            waiting = asyncio.create_task(api.wait("s1", poll_s=60))
            done, _ = await asyncio.wait([waiting], timeout=0.05)
            assert not done
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(race())


def test_an_interrupted_download_cleans_up_after_itself(tmp_path: Path) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Api("http://server", "k", transport=httpx.MockTransport(interrupt)).download_best(
            "s1", tmp_path / "model"
        )
    assert list(tmp_path.iterdir()) == []
