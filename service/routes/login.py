"""Logging a browser in: a one-time link, or a page that takes a key. No script runs on it."""

from html import escape
from typing import cast
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from service.auth import SESSION_COOKIE, is_same_origin
from service.context import Context
from service.routes.documented import errors
from service.store.clock import moment
from service.store.database import Database
from service.store.keys import (
    LINK_LIFETIME,
    SESSION_LIFETIME,
    Identity,
    create_link,
    create_session,
    hash_secret,
    identify_key,
    redeem_link,
)
from studies.wire.login import LoginLink

router = APIRouter(tags=["login"])

HOME_PAGE = "/dashboard"
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · Bertune</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 15vh auto;
         padding: 0 1rem; color: #1d2433; background: #f6f7f9; }}
  h1 {{ font-size: 1.4rem; }}
  label, input, button {{ display: block; width: 100%; box-sizing: border-box; }}
  input, button {{ font: inherit; padding: .6rem; margin: .4rem 0 1rem; border: 1px solid #b4bccb;
                  border-radius: .4rem; }}
  button {{ background: #2456c4; border-color: #2456c4; color: #fff; cursor: pointer; }}
  [role=alert] {{ color: #a3210f; }}
  code {{ background: #e6e9ef; padding: .1rem .3rem; border-radius: .2rem; }}
  @media (prefers-color-scheme: dark) {{
    body {{ color: #e3e7ef; background: #161a22; }} code, input {{ background: #262c38; }}
    input {{ color: inherit; }} [role=alert] {{ color: #ff9d8c; }}
  }}
</style>
</head>
<body>
<main>
<h1>Bertune</h1>
{alert}
<form method="post" action="/login?next={target}">
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button>
</form>
<p>The first key lies in <code>admin.key</code> in the server's home folder;
<code>bertune keys login-link</code> prints a link that logs you in without it.</p>
</main>
</body>
</html>
"""


@router.get("/login", include_in_schema=False)
def show_login(
    request: Request, context: Context, token: str | None = None, next: str = HOME_PAGE
) -> Response:
    """The page, or with a link's token the session it stands for."""
    if token is None:
        return _page(next)
    with context.database.transaction() as session:
        cookie = redeem_link(session, token, moment(session))
    if cookie is None:
        return _page(next, "This link has expired or was used already.", status=401)
    return _logged_in(request, cookie, next)


@router.post("/login", include_in_schema=False)
async def log_in(request: Request, context: Context, next: str = HOME_PAGE) -> Response:
    """Take a key from the page's form."""
    if not is_same_origin(request.headers, unknown=True):
        return _page(next, "Log in from this server's own page.", status=403)
    # Read here, with small limits, since anyone may send this body.
    async with request.form(max_files=0, max_fields=4, max_part_size=4096) as form:
        key = form.get("key")
    if not isinstance(key, str):
        return _page(next, "Enter a key.", status=422)
    cookie = await run_in_threadpool(_open_session, context.database, key.strip())
    if cookie is None:
        return _page(next, "This key is unknown or revoked.", status=401)
    return _logged_in(request, cookie, next)


@router.post(
    "/v1/login-links",
    status_code=201,
    summary="Make a one-time login link",
    responses=errors(),
)
def make_login_link(request: Request, context: Context) -> LoginLink:
    """A link that logs one browser in as the caller, once, within ten minutes."""
    identity = cast(Identity, request.state.identity)
    with context.database.transaction() as session:
        now = moment(session)
        token = create_link(session, identity.key_id, now)
    return LoginLink(url=f"/login?token={token}", expires_at=now + LINK_LIFETIME)


def _open_session(database: Database, key: str) -> str | None:
    with database.transaction() as session:
        identity = identify_key(session, hash_secret(key))
        if identity is None:
            return None
        return create_session(session, identity.key_id, moment(session))


def _page(target: str, alert: str = "", *, status: int = 200) -> HTMLResponse:
    shown = f'<p role="alert">{escape(alert)}</p>' if alert else ""
    page = PAGE.format(alert=shown, target=quote(_own_page(target), safe=""))
    return HTMLResponse(page, status_code=status, headers=PAGE_HEADERS)


def _logged_in(request: Request, cookie: str, target: str) -> Response:
    response = RedirectResponse(_own_page(target), status_code=303, headers=PAGE_HEADERS)
    response.set_cookie(
        SESSION_COOKIE,
        cookie,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


def _own_page(target: str) -> str:
    """``target`` when it is a path on this server; browsers take `//host` and `/\\host` for others
    and drop control characters before they look."""
    plain = target.isprintable() and target.startswith("/")
    return target if plain and target[1:2] not in ("/", "\\") else HOME_PAGE
