"""The database refuses, freezes or is locked for a while: plain answers, and nothing is lost."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, serving
from builders import claim_request, crash_request, make_study, renew_request, result_request
from sqlalchemy import create_engine, text, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from tcp_proxy import TcpProxy, proxied

from service import auth
from service.queue import study_lock
from service.queue.study_lock import StudyLocks
from service.store.clock import now_s
from service.store.database import Database
from service.store.outage import NOTICED_S
from service.store.tables import ServerPulse, Trial
from studies import postgresql, sqlite
from studies.wire.leases import LeaseRequest

AWAY = (503, "database_unavailable")
HOUR_S = 3600.0
THREADS = 45
"""More than a server has."""


class Dut:
    """A server whose database the test can take away."""

    def __init__(self, api: ApiServer, database: Database) -> None:
        self.api = api
        self.database = database
        """The same one, by a way that stays open."""

    def answer(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        answer = self.api.client.request(method, path, json=body)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status_code, answer.json().get("error", "") if is_json else ""

    def claim(self, worker: str = "w1", **fields: Any) -> tuple[str, int]:
        return self.send_claim(claim_request(worker, **fields))

    def send_claim(self, request: LeaseRequest) -> tuple[str, int]:
        answer = self.api.client.post("/v1/leases", json=request.model_dump(mode="json"))
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()["trial_id"], answer.json()["attempt"]

    def renew(self, trial_id: str, attempt: int) -> tuple[int, str]:
        body = renew_request().model_dump(mode="json")
        return self.answer("PUT", f"/v1/leases/{trial_id}/{attempt}", body)


@pytest.fixture(autouse=True)
def no_remembered_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request looks its key up, as most do that come seconds apart."""
    monkeypatch.setattr(auth, "CACHE_S", 0.0)


@pytest.fixture
def postgresql_copy(make_postgresql, migrated_postgresql: str) -> Iterator[URL]:  # type: ignore[no-untyped-def]
    with make_postgresql(migrated_postgresql) as url:
        yield url


@pytest.fixture
def behind_proxy(postgresql_copy: URL, tmp_path: Path) -> Iterator[tuple[Dut, TcpProxy]]:
    """On PostgreSQL, whose server is reached by a proxy."""
    direct = Database(postgresql_copy)
    with proxied(postgresql_copy) as (proxy, url):
        far = Database(url)
        with serving(far, tmp_path, reconcile_s=3600) as api:
            yield Dut(api, direct), proxy
        far.dispose()
    direct.dispose()


def routes(trial_id: str, attempt: int) -> list[tuple[str, str, object]]:
    lease = f"/v1/leases/{trial_id}/{attempt}"
    return [
        ("GET", "/v1/studies", None),
        ("POST", "/v1/studies", {"name": "other", "dataset": "0" * 16}),
        ("GET", "/v1/workers", None),
        ("GET", "/metrics", None),
        ("GET", "/api/studies", None),
        ("GET", "/dashboard", None),
        ("POST", "/v1/leases", claim_request("w2").model_dump(mode="json")),
        ("PUT", lease, renew_request().model_dump(mode="json")),
        ("POST", f"{lease}/result", result_request().model_dump(mode="json")),
        ("POST", f"{lease}/failure", crash_request().model_dump(mode="json")),
    ]


def test_while_postgresql_refuses_every_route_says_so_and_afterwards_all_goes_on(
    behind_proxy: tuple[Dut, TcpProxy],
) -> None:
    dut, proxy = behind_proxy
    make_study(dut.database, n_trials=2)
    trial_id, attempt = dut.claim()

    proxy.refuse()
    started = time.monotonic()
    answers = {path: dut.answer(method, path, body) for method, path, body in routes(trial_id, 1)}
    assert answers == dict.fromkeys(answers, AWAY)
    assert dut.answer("GET", "/readyz") == (503, "not_ready")
    assert dut.answer("GET", "/healthz") == (200, "")
    assert time.monotonic() - started < 10

    proxy.go_on()
    assert dut.answer("GET", "/readyz")[0] == 200
    assert dut.renew(trial_id, attempt) == (200, "")
    end = result_request().model_dump(mode="json")
    assert dut.answer("POST", f"/v1/leases/{trial_id}/{attempt}/result", end) == (200, "")
    second, _ = dut.claim("w2")
    assert second != trial_id


def test_a_key_known_a_moment_ago_hears_of_the_database_too(
    behind_proxy: tuple[Dut, TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHE_S", 3600.0)
    dut, proxy = behind_proxy
    make_study(dut.database, n_trials=2)
    trial_id, _ = dut.claim()
    proxy.refuse()
    served = [route for route in routes(trial_id, 1) if route[1] != "/dashboard"]  # a plain file
    answers = {path: dut.answer(method, path, body) for method, path, body in served}
    assert answers == dict.fromkeys(answers, AWAY)


def test_a_postgresql_that_accepts_and_never_answers_is_given_up(
    postgresql_copy: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "ANSWER_S", 0.5)
    monkeypatch.setattr(postgresql, "CONNECT_S", 2)  # the least that the driver takes
    with proxied(postgresql_copy) as (proxy, url):
        far = Database(url)
        with serving(far, tmp_path, reconcile_s=3600) as api:
            dut = Dut(api, far)
            make_study(far, n_trials=1)
            trial_id, attempt = dut.claim()
            proxy.freeze()
            started = time.monotonic()
            assert dut.renew(trial_id, attempt) == AWAY
            assert dut.answer("GET", "/v1/studies") == AWAY
            with ThreadPoolExecutor(THREADS) as pool:  # every thread of the server waits
                waiting = [pool.submit(dut.answer, "GET", "/readyz") for _ in range(THREADS)]
                answered = 0
                while not any(answer.done() for answer in waiting):
                    assert dut.answer("GET", "/healthz") == (200, "")
                    answered += not any(answer.done() for answer in waiting)
                assert answered  # while all of them waited
                assert [answer.result() for answer in waiting] == [(503, "not_ready")] * THREADS
            assert time.monotonic() - started < 30
            proxy.go_on()
            assert dut.renew(trial_id, attempt) == (200, "")
        far.dispose()


def test_a_server_that_stops_inside_an_ask_gives_its_study_up(
    postgresql_copy: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_lock, "FROZEN_S", 1)
    database = Database(postgresql_copy)
    frozen, other = StudyLocks(database), StudyLocks(database)
    with pytest.raises(DBAPIError), frozen.hold("study"), other.hold("study"):
        pass  # the second waits until the first is ended
    with frozen.hold("study"):
        pass
    frozen.close()
    other.close()
    database.dispose()


def test_a_statement_that_the_server_takes_long_over_is_ended_there_and_its_connection_stays(
    postgresql_copy: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "STATEMENT_S", 1)
    database = Database(postgresql_copy)
    with database.reading() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(Exception, match="statement timeout"):
            session.execute(text("SELECT pg_sleep(30)"))
        session.rollback()
        assert session.scalar(text("SELECT pg_backend_pid()")) == pid
    database.dispose()


def test_a_migration_may_take_longer_than_a_request(
    postgresql_copy: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "STATEMENT_S", 1)
    monkeypatch.setattr(postgresql, "ANSWER_S", 1.2)
    database = Database(postgresql_copy)
    with database.transaction() as session, postgresql.unhurried(session.connection()):
        session.execute(text("SELECT pg_sleep(1.5)"))
    with database.transaction() as session, pytest.raises(Exception, match="statement timeout"):
        session.execute(text("SELECT pg_sleep(1.5)"))
    database.dispose()


def test_a_server_that_stops_inside_a_transaction_gives_its_locks_up(
    postgresql_copy: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "IDLE_TRANSACTION_S", 1)
    frozen, other = Database(postgresql_copy), Database(postgresql_copy)
    study_id = make_study(other, n_trials=1)
    lock = text("SELECT id FROM study WHERE id = :id FOR UPDATE")
    with pytest.raises(DBAPIError), frozen.transaction() as stopped:  # noqa: PT012
        stopped.execute(lock, {"id": study_id})
        with other.transaction() as session:  # waits until the first is ended
            session.execute(lock, {"id": study_id})
    frozen.dispose()
    other.dispose()


def test_what_the_address_says_of_a_session_stays_but_its_time_zone(postgresql_copy: URL) -> None:
    stated = "-c search_path=elsewhere -c timezone=Asia/Tokyo -c statement_timeout=7s"
    database = Database(postgresql_copy.update_query_dict({"options": stated}))
    with database.reading() as session:
        shown = [
            session.scalar(text(f"SHOW {name}"))
            for name in ("search_path", "timezone", "statement_timeout")
        ]
    database.dispose()
    assert shown == ["elsewhere", "UTC", "7s"]


@contextmanager
def away(dut: Dut, proxy: TcpProxy | None, *, lapsed_s: float) -> Iterator[None]:
    """For an hour, as far as the last beat tells; leases ended ``lapsed_s`` ago."""
    with ExitStack() as stack:
        if proxy is not None:
            proxy.refuse()
            stack.callback(proxy.go_on)
        session = stack.enter_context(dut.database.transaction())  # which locks all of SQLite
        now = now_s(session)
        session.execute(update(ServerPulse).values(beaten_at=now - HOUR_S))
        running = update(Trial).where(Trial.state == "running")
        session.execute(running.values(lease_expires_at=now - lapsed_s))
        if proxy is not None:
            session.commit()
        assert dut.renew("nothing", 1) == AWAY
        threading.Event().wait(NOTICED_S)
        yield


@pytest.fixture
def either(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Dut, TcpProxy | None]]:
    if kind == "postgresql":
        yield request.getfixturevalue("behind_proxy")
        return
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    database: Database = request.getfixturevalue("database")
    with serving(database, tmp_path / "home", reconcile_s=3600) as api:
        yield Dut(api, database), None


def test_a_lease_that_lapsed_while_the_database_was_away_is_not_taken_from_its_worker(
    either: tuple[Dut, TcpProxy | None],
) -> None:
    dut, proxy = either
    make_study(dut.database, n_trials=1)
    trial_id, attempt = dut.claim("w1")
    with away(dut, proxy, lapsed_s=HOUR_S / 2):
        assert dut.renew(trial_id, attempt) == AWAY
    # An idle worker is back first.
    assert dut.answer("POST", "/v1/leases", claim_request("w2").model_dump(mode="json"))[0] == 204
    assert dut.renew(trial_id, attempt) == (200, "")
    assert dut.api.get("/v1/workers")["items"][0]["trials"] != []


def test_a_lease_that_had_lapsed_before_the_database_went_away_is_taken(
    either: tuple[Dut, TcpProxy | None],
) -> None:
    dut, proxy = either
    make_study(dut.database, n_trials=1)
    trial_id, _ = dut.claim("w1")
    with away(dut, proxy, lapsed_s=2 * HOUR_S):
        pass
    assert dut.claim("w2") == (trial_id, 2)


def test_a_claim_whose_parameters_the_database_cut_off_is_no_crash_of_the_trial(
    either: tuple[Dut, TcpProxy | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    dut, _ = either
    study_id = make_study(dut.database, n_trials=1)
    request = claim_request("w1")
    body = request.model_dump(mode="json")
    optuna = dut.api.context.optuna
    ask = optuna.ask

    def cut_off(*args: object) -> None:
        engine = create_engine("sqlite:///no/such/folder/at.all")
        with engine.connect():
            raise AssertionError("there is no such database")

    for _ in range(4):  # more often than a trial may crash
        monkeypatch.setattr(optuna, "ask", cut_off)
        assert dut.answer("POST", "/v1/leases", body) == AWAY
    monkeypatch.setattr(optuna, "ask", ask)
    assert dut.send_claim(request)[1] == 1
    trial = dut.api.get(f"/v1/studies/{study_id}/trials/0")
    assert (trial["state"], trial["attempt"]) == ("running", 1)
