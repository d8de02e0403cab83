"""API keys, one-time login links and browser sessions.

Only hashes are stored. A secret is 256 random bits, so a plain SHA-256 cannot be searched, and
looking a hash up in an index tells an attacker nothing about its neighbours.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from service.store.identifiers import new_id
from service.store.tables import ApiKey, LoginToken

KEY_PREFIX = "bt_"
LINK_LIFETIME = timedelta(minutes=10)
SESSION_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is: the key that it carried, or that its browser logged in with."""

    key_id: str
    key_name: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. ``secret`` is shown now and never again."""

    id: str
    name: str
    secret: str


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def create_key(session: Session, name: str, now: datetime, *, secret: str | None = None) -> NewKey:
    """Store a key's hash; ``secret`` is given only when the key exists already (a key file)."""
    key = NewKey(id=new_id(), name=name, secret=secret or new_secret())
    session.add(
        ApiKey(
            id=key.id, name=name, sha256=hash_secret(key.secret), created_at=now, revoked_at=None
        )
    )
    return key


def list_keys(session: Session) -> list[ApiKey]:
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def find_any_key(session: Session, secret: str) -> ApiKey | None:
    """The row of a key, revoked or not."""
    return session.scalar(select(ApiKey).where(ApiKey.sha256 == hash_secret(secret)))


def revoke_key(session: Session, id_or_name: str, now: datetime) -> int:
    """Revoke the key with this id, or every key of this name; the number revoked.

    Sessions and links of a revoked key die with it.
    """
    revoked = session.execute(
        update(ApiKey)
        .where(or_(ApiKey.id == id_or_name, ApiKey.name == id_or_name))
        .where(ApiKey.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(ApiKey.id)
    )
    return len(revoked.all())


def identify_key(session: Session, sha256: str) -> Identity | None:
    row = session.execute(
        select(ApiKey.id, ApiKey.name).where(ApiKey.sha256 == sha256, ApiKey.revoked_at.is_(None))
    ).one_or_none()
    return None if row is None else Identity(row.id, row.name)


def identify_session(session: Session, sha256: str, now: datetime) -> Identity | None:
    row = session.execute(
        select(ApiKey.id, ApiKey.name)
        .join(LoginToken, LoginToken.api_key_id == ApiKey.id)
        .where(LoginToken.sha256 == sha256, LoginToken.kind == "session")
        .where(LoginToken.expires_at > now, ApiKey.revoked_at.is_(None))
    ).one_or_none()
    return None if row is None else Identity(row.id, row.name)


def create_link(session: Session, key_id: str, now: datetime) -> str:
    """The token of a link that logs one browser in, once, within `LINK_LIFETIME`."""
    session.execute(delete(LoginToken).where(LoginToken.expires_at < now))
    return _create_token(session, "link", key_id, now, LINK_LIFETIME)


def create_session(session: Session, key_id: str, now: datetime) -> str:
    """The value of a browser's cookie, good for `SESSION_LIFETIME`."""
    return _create_token(session, "session", key_id, now, SESSION_LIFETIME)


def redeem_link(session: Session, token: str, now: datetime) -> str | None:
    """Turn a link's token into a session's, or None when it is unknown, expired or used.

    One UPDATE both checks and marks the link, so that of two browsers with it only one gets in.
    """
    key_id = session.scalar(
        update(LoginToken)
        .where(LoginToken.sha256 == hash_secret(token), LoginToken.kind == "link")
        .where(LoginToken.used_at.is_(None), LoginToken.expires_at > now)
        .values(used_at=now)
        .returning(LoginToken.api_key_id)
    )
    return None if key_id is None else create_session(session, key_id, now)


def _create_token(
    session: Session, kind: str, key_id: str, now: datetime, lifetime: timedelta
) -> str:
    token = secrets.token_urlsafe(32)
    session.add(
        LoginToken(
            sha256=hash_secret(token),
            kind=kind,
            api_key_id=key_id,
            expires_at=now + lifetime,
            used_at=None,
        )
    )
    return token
