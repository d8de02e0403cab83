"""Keys, login links and browser sessions, on the real application."""

import asyncio
import re
import shutil
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from api_server import ApiServer, serving
from fastapi import FastAPI
from starlette.routing import Route
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from service.admin_key import ensure_admin_key
from service.auth import CACHE_S, OPEN_PATHS, SESSION_COOKIE, Keyring
from service.store.database import Database
from service.store.keys import (
    LINK_LIFETIME,
    create_key,
    create_link,
    create_session,
    hash_secret,
    identify_session,
    list_keys,
    redeem_link,
    revoke_key,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HTML = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def api(migrated_sqlite: Path, tmp_path: Path) -> Iterator[ApiServer]:
    """The application; what differs between databases is tested below it."""
    path = tmp_path / "bertune.db"
    shutil.copy(migrated_sqlite, path)
    with serving(Database(f"sqlite:///{path}"), tmp_path / "home") as server:
        yield server


@pytest.fixture
def stranger(api: ApiServer) -> TestClient:
    """A client of the same server without a key."""
    return TestClient(api.client.app, follow_redirects=False, raise_server_exceptions=False)


def login_token(api: ApiServer) -> str:
    url = api.client.post("/v1/login-links").json()["url"]
    assert url.startswith("/login?token=")
    return str(url.removeprefix("/login?token="))


@pytest.fixture
def browser(api: ApiServer, stranger: TestClient) -> TestClient:
    """A client that logged in by a link."""
    answer = stranger.get("/login", params={"token": login_token(api)})
    assert answer.status_code == 303
    return stranger


# Every route


def addresses(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of everything the application documents, and of what is mounted beside."""
    found = [
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    ]
    found += [("GET", route.path) for route in app.router.routes if isinstance(route, Route)]
    return [(method, re.sub(r"{.*?}", "x", path)) for method, path in found]


def test_every_route_but_the_open_ones_refuses_a_request_without_a_key(
    api: ApiServer, stranger: TestClient
) -> None:
    app = api.client.app
    assert isinstance(app, FastAPI)
    routes = addresses(app)
    paths = {path for _, path in routes}
    assert {"/v1/studies", "/v1/docs", "/v1/openapi.json", "/dashboard", "/metrics"} <= paths
    assert {"/api/x", "/static/x", "/v1/leases", "/v1/studies/x/best/model"} <= paths
    for method, path in [*routes, ("GET", "/no/such/page"), ("DELETE", "/healthz/"), ("GET", "//")]:
        if path not in OPEN_PATHS:
            answer = stranger.request(method, path)
            assert answer.status_code == 401, (method, path)


def test_health_readiness_and_the_login_page_are_open(stranger: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/login"):
        assert stranger.get(path).status_code == 200


def test_the_schemas_are_open_to_editors_which_send_no_key(stranger: TestClient) -> None:
    for path, name in (("study", "StudySpec"), ("schedule", "ScheduleSpec")):
        answer = stranger.get(f"/v1/schemas/{path}.json")
        assert answer.headers["content-type"] == "application/schema+json"
        assert answer.json()["title"] == name


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {key}", "{key}", "Bearer {key}x"]
)
def test_a_header_without_a_valid_key_is_refused_as_json(
    api: ApiServer, stranger: TestClient, value: str
) -> None:
    key = api.context.settings.admin_key_file.read_text().strip()
    header = {"Authorization": value.format(key=key), **HTML}
    answer = stranger.get("/v1/studies", headers=header)
    assert answer.status_code == 401
    assert answer.json()["error"] == "unauthorized"
    assert answer.json()["where"] == []
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_may_be_sent_under_any_case_of_the_scheme(
    api: ApiServer, stranger: TestClient
) -> None:
    key = api.context.settings.admin_key_file.read_text().strip()
    answer = stranger.get("/v1/studies", headers={"Authorization": f"bearer {key}"})
    assert answer.status_code == 200


def test_a_browser_without_a_session_is_sent_to_the_login_page_and_back(
    stranger: TestClient,
) -> None:
    answer = stranger.get("/v1/studies?state=running", headers=HTML)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fv1%2Fstudies%3Fstate%3Drunning"
    # Only a page is worth coming back to.
    assert stranger.post("/v1/studies", headers=HTML).status_code == 401


def test_a_websocket_without_a_key_is_closed(stranger: TestClient) -> None:
    with (
        pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
        stranger.websocket_connect("/v1/studies"),
    ):
        pass


# Links and sessions


def test_a_link_logs_one_browser_in_once(api: ApiServer, stranger: TestClient) -> None:
    token = login_token(api)
    answer = stranger.get("/login", params={"token": token, "next": "/v1/docs"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/v1/docs"
    cookie = answer.headers["set-cookie"].lower()
    for part in ("httponly", "samesite=lax", "path=/", "max-age=2592000"):
        assert part in cookie
    assert "secure" not in cookie
    assert stranger.get("/v1/studies").status_code == 200

    stranger.cookies.clear()
    again = stranger.get("/login", params={"token": token})
    assert again.status_code == 401
    assert "set-cookie" not in again.headers
    assert stranger.get("/v1/studies").status_code == 401


def test_the_cookie_is_secure_when_the_server_is_reached_by_https(
    api: ApiServer, stranger: TestClient
) -> None:
    url = f"https://testserver/login?token={login_token(api)}"
    assert "secure" in stranger.get(url).headers["set-cookie"].lower()


def test_of_many_browsers_with_one_link_one_gets_in(database: Database) -> None:
    with database.transaction() as session:
        key = create_key(session, "a", NOW)
    with database.transaction() as session:
        token = create_link(session, key.id, NOW)
    start = threading.Barrier(8)

    def redeem(_: int) -> str | None:
        start.wait(30)
        with database.transaction() as session:
            return redeem_link(session, token, NOW)

    with ThreadPoolExecutor(8) as pool:
        cookies = [cookie for cookie in pool.map(redeem, range(8)) if cookie]
    assert len(cookies) == 1


def test_a_link_expires_and_a_session_token_is_no_link(database: Database) -> None:
    with database.transaction() as session:
        key = create_key(session, "a", NOW)
    with database.transaction() as session:
        late, cookie = create_link(session, key.id, NOW), create_session(session, key.id, NOW)
    with database.transaction() as session:
        assert redeem_link(session, late, NOW + LINK_LIFETIME) is None
        assert redeem_link(session, cookie, NOW) is None
        assert redeem_link(session, late, NOW + LINK_LIFETIME - timedelta(seconds=1)) is not None


def test_a_session_ends_after_thirty_days_and_with_its_key(database: Database) -> None:
    with database.transaction() as session:
        key = create_key(session, "a", NOW)
    with database.transaction() as session:
        sha256 = hash_secret(create_session(session, key.id, NOW))
    with database.transaction() as session:
        assert identify_session(session, sha256, NOW + timedelta(days=29)) is not None
        assert identify_session(session, sha256, NOW + timedelta(days=30)) is None
        revoke_key(session, "a", NOW)
        assert identify_session(session, sha256, NOW) is None


def test_a_key_is_no_cookie_and_a_cookie_no_key(browser: TestClient, api: ApiServer) -> None:
    cookie = browser.cookies[SESSION_COOKIE]
    key = api.context.settings.admin_key_file.read_text().strip()
    browser.cookies.clear()
    assert (
        browser.get("/v1/studies", headers={"Authorization": f"Bearer {cookie}"}).status_code == 401
    )
    browser.cookies.set(SESSION_COOKIE, key)
    assert browser.get("/v1/studies").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": "http://testserver"}, 201),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://proxied.example"}, 201),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://testserver"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://testserver:8001"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_a_logged_in_browser_writes_from_the_servers_own_pages_only(
    browser: TestClient, headers: dict[str, str], status: int
) -> None:
    answer = browser.post("/v1/login-links", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"] == "cross_origin"
    assert browser.get("/v1/studies", headers=headers).status_code == 200


# The login page


def test_the_page_takes_a_key_and_runs_no_script(api: ApiServer, stranger: TestClient) -> None:
    page = stranger.get("/login", params={"next": "/v1/docs"})
    assert "<script" not in page.text
    assert 'action="/login?next=%2Fv1%2Fdocs"' in page.text
    key = api.context.settings.admin_key_file.read_text().strip()
    answer = stranger.post("/login?next=%2Fv1%2Fdocs", data={"key": f" {key}\n"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/v1/docs")
    assert stranger.get("/v1/docs").status_code == 200


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        ({"key": "wrong"}, {}, 401),
        ({}, {}, 422),
        ({"key": "x" * 5000}, {}, 400),
        ({"key": "{key}"}, {"Sec-Fetch-Site": "cross-site"}, 403),
        ({"key": "{key}"}, {"Origin": "http://evil.example"}, 403),
    ],
)
def test_a_wrong_login_sets_no_cookie(
    api: ApiServer,
    stranger: TestClient,
    form: dict[str, str],
    headers: dict[str, str],
    status: int,
) -> None:
    key = api.context.settings.admin_key_file.read_text().strip()
    filled = {name: value.replace("{key}", key) for name, value in form.items()}
    answer = stranger.post("/login", data=filled, headers=headers)
    assert answer.status_code == status
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "x"]
)
def test_logging_in_never_leads_to_another_server(
    api: ApiServer, stranger: TestClient, target: str
) -> None:
    answer = stranger.get("/login", params={"token": login_token(api), "next": target})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")


def test_what_is_written_into_the_page_is_escaped(stranger: TestClient) -> None:
    page = stranger.get("/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script" not in page.text


# Keys


def test_a_revoked_key_is_refused_once_the_cache_has_forgotten_it(database: Database) -> None:
    now = [0.0]
    keyring = Keyring(database, clock=lambda: now[0])
    with database.transaction() as session:
        key = create_key(session, "a", NOW)

    def known() -> bool:
        return asyncio.run(keyring.identify("key", key.secret)) is not None

    assert known()
    with database.transaction() as session:
        assert revoke_key(session, key.id, NOW) == 1
    now[0] = CACHE_S - 0.01
    assert known()
    now[0] = CACHE_S
    assert not known()
    assert CACHE_S < 5


def test_a_key_made_after_it_was_refused_works_at_once(database: Database) -> None:
    keyring = Keyring(database)
    assert asyncio.run(keyring.identify("key", "bt_later")) is None
    with database.transaction() as session:
        create_key(session, "a", NOW, secret="bt_later")
    assert asyncio.run(keyring.identify("key", "bt_later")) is not None


def test_revoking_by_name_takes_every_valid_key_of_the_name(database: Database) -> None:
    with database.transaction() as session:
        for name in ("ci", "ci", "other"):
            create_key(session, name, NOW)
    with database.transaction() as session:
        assert revoke_key(session, "ci", NOW) == 2
        assert revoke_key(session, "ci", NOW) == 0
        assert revoke_key(session, "nobody", NOW) == 0


def test_no_secret_is_stored(database: Database) -> None:
    with database.transaction() as session:
        key = create_key(session, "a", NOW)
    with database.reading() as session:
        stored = list_keys(session)[0]
    values = [str(getattr(stored, column.name)) for column in stored.__table__.columns]
    assert not any(key.secret in value for value in values)


# The admin key's file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_writes_a_key_that_only_its_owner_reads_and_later_ones_keep_it(
    database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "home" / "admin.key"
    key = ensure_admin_key(database, path)
    assert path.read_text() == key + "\n"
    assert mode(path) == 0o600
    assert ensure_admin_key(database, path) == key
    assert [entry.name for entry in path.parent.iterdir()] == ["admin.key"]


def test_a_lost_file_is_replaced_and_its_key_stays_valid(
    database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "admin.key"
    lost = ensure_admin_key(database, path)
    path.unlink()
    made = ensure_admin_key(database, path)
    assert made != lost
    keyring = Keyring(database)
    for key in (lost, made):
        assert asyncio.run(keyring.identify("key", key)) is not None


def test_a_file_from_another_database_is_adopted(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    path.write_text("bt_moved\n")
    path.chmod(0o644)
    assert ensure_admin_key(database, path) == "bt_moved"
    assert asyncio.run(Keyring(database).identify("key", "bt_moved")) is not None
    assert mode(path) == 0o600


def test_a_revoked_admin_key_and_an_empty_file_are_replaced(
    database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "admin.key"
    old = ensure_admin_key(database, path)
    with database.transaction() as session:
        revoke_key(session, "admin", NOW)
    new = ensure_admin_key(database, path)
    assert new != old
    assert path.read_text().strip() == new
    path.write_text("")
    assert ensure_admin_key(database, path) == path.read_text().strip() != ""


def test_servers_that_start_at_once_in_one_home_agree_on_the_key(
    database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "admin.key"
    start = threading.Barrier(8)

    def ensure(_: int) -> str:
        start.wait(30)
        return ensure_admin_key(database, path)

    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(ensure, range(8)))
    assert keys == {path.read_text().strip()}
    with database.reading() as session:
        assert len(list_keys(session)) == 1
