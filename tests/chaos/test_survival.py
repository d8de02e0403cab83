"""What a 2xx said is there after a SIGKILL of the server, and a key sent often makes one study."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from chaos.house import House, open_house
from chaos.nursery import Nursery
from chaos.requests import kill_at_once, send
from real_parts import tickets, until
from sqlalchemy import func, select

from service.store.database import Database
from service.store.tables import Study
from studies.api import Api
from studies.spec import StudySpec

POSTS = 50


@pytest.fixture
def house(kind: str, database: Database, processes: Nursery, tmp_path: Path) -> Iterator[House]:
    """On PostgreSQL two servers."""
    with open_house(processes, tmp_path, database, servers=2 if kind == "postgresql" else 1) as it:
        yield it


def multipart(content: bytes) -> tuple[bytes, str]:
    """A form with the file ``train`` and its content type."""
    head = b'--x\r\nContent-Disposition: form-data; name="train"; filename="tickets.csv"\r\n\r\n'
    return head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def test_what_was_answered_is_whole_after_the_server_was_killed(
    house: House, tmp_path: Path
) -> None:
    port = house.ports[0]

    def answered(method: str, path: str, body: bytes = b"", **headers: str) -> dict[str, Any]:
        status, answer = send(house, port, method, path, body, **headers)
        kill_at_once(house, port)
        assert status in (200, 201), answer
        house.open()
        return dict(answer)

    form, content_type = multipart(tickets(tmp_path).read_bytes())
    dataset = answered("POST", "/v1/datasets", form, Content_Type=content_type)
    spec = {"name": "kept", "dataset": dataset["id"], "budget": {"n_trials": 7}}
    study = answered("POST", "/v1/studies", json.dumps(spec).encode())
    cancelled = answered("POST", f"/v1/studies/{study['id']}/cancel")

    with Api(f"http://127.0.0.1:{port}", house.key) as client:
        assert client.dataset(dataset["id"]).model_dump(mode="json") == dataset
        found = client.study(study["id"])
        assert found.model_dump(mode="json") == cancelled
        assert (found.state, found.trials.cancelled) == ("cancelled", 7)
        again = client.submit(StudySpec.model_validate(spec))  # its data's files are whole as well
        assert client.study(again.id).trials.queued == 7


def post_at_once(house: House, bodies: list[bytes], key: str, port_of: Callable[[int], int]) -> Any:
    """Post all bodies under one key from threads that start together; each is sent again until
    it is answered, as a client does whose server dies."""
    gate = threading.Barrier(len(bodies))
    given_up = threading.Event()

    def post(index: int) -> tuple[int, Any]:
        gate.wait(30)
        while not given_up.wait(0.05):
            try:
                return send(
                    house,
                    port_of(index),
                    "POST",
                    "/v1/studies",
                    bodies[index],
                    Idempotency_Key=key,
                )
            except (OSError, HTTPException):
                continue
        raise AssertionError("given up")

    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = [pool.submit(post, index) for index in range(len(bodies))]
        try:
            return [answer.result(120) for answer in answers]
        finally:
            given_up.set()


def submitted(house: House, name: str) -> list[str]:
    with Api(f"http://127.0.0.1:{house.ports[0]}", house.key) as client:
        return [study.id for study in client.studies() if study.name == name]


def test_fifty_posts_of_one_key_make_one_study_and_another_body_is_refused(
    house: House, tmp_path: Path
) -> None:
    with Api(f"http://127.0.0.1:{house.ports[0]}", house.key) as client:
        dataset = client.upload_dataset(tickets(tmp_path)).id
    one, other = (json.dumps({"name": name, "dataset": dataset}).encode() for name in "ab")

    def any_port(index: int) -> int:
        return house.ports[index % len(house.ports)]

    same = post_at_once(house, [one] * POSTS, "same", any_port)
    assert {status for status, _ in same} <= {200, 201}
    assert {answer["id"] for _, answer in same} == set(submitted(house, "a"))
    assert len(submitted(house, "a")) == 1
    status, answer = send(house, any_port(0), "POST", "/v1/studies", other, Idempotency_Key="same")
    assert (status, answer["error"]) == (409, "idempotency_conflict")

    mixed = post_at_once(house, [one, other] * (POSTS // 2), "mixed", any_port)
    won = {answer["id"] for status, answer in mixed if status < 300}
    assert len(won) == 1
    counted = Counter(answer["error"] for status, answer in mixed if status >= 300)
    assert counted == {"idempotency_conflict": POSTS // 2}
    assert len(submitted(house, "a")) + len(submitted(house, "b")) == 2


def test_fifty_posts_of_one_key_make_one_study_though_the_server_is_killed_among_them(
    house: House, database: Database, tmp_path: Path
) -> None:
    port = house.ports[0]
    with Api(f"http://127.0.0.1:{port}", house.key) as client:
        dataset = client.upload_dataset(tickets(tmp_path)).id
    body = json.dumps({"name": "once", "dataset": dataset}).encode()

    def is_stored() -> bool:
        with database.reading() as session:
            return session.scalar(select(func.count()).select_from(Study)) == 1

    def port_of(index: int) -> int:
        return house.ports[index % len(house.ports)]

    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(post_at_once, house, [body] * POSTS, "once", port_of)
        until(is_stored)
        kill_at_once(house, port)
        house.open()
        answers = posting.result(150)
    assert {status for status, _ in answers} <= {200, 201}
    assert {answer["id"] for _, answer in answers} == set(submitted(house, "once"))
    assert len(submitted(house, "once")) == 1
