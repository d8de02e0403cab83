"""The admin key that a first start makes: a file beside the data, readable by its owner only.

The command line and local workers find the key there. Several servers on one PostgreSQL each
keep a key file in their own home.
"""

import logging
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from service.store.database import Database
from service.store.keys import create_key, find_any_key, new_secret

logger = logging.getLogger(__name__)

OWNER_ONLY = 0o600


def ensure_admin_key(database: Database, path: Path) -> str:
    """Return the key in ``path`` once the database knows it; make both when the file is missing.

    A file whose key the database does not know (a new database in an old home) is registered. A
    revoked one is replaced. The schema must stand already.
    """
    for _ in range(3):
        secret = read_or_make_key(path)
        if _register(database, secret):
            return secret
        logger.warning("the admin key in %s was revoked; writing a new one", path)
        _write(path, new_secret(), replace=True)
    raise RuntimeError(f"another process keeps replacing {path}")


def read_or_make_key(path: Path) -> str:
    """Return the key in ``path``, a new one when the file is missing. Whether a database knows it,
    or has it revoked, is `ensure_admin_key`'s to find out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _read(path) or _write(path, new_secret(), replace=False)


def _read(path: Path) -> str | None:
    try:
        secret = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    if path.stat().st_mode & 0o077:
        logger.warning("%s was readable by others; now by its owner only", path)
        path.chmod(OWNER_ONLY)
    return secret or None


def _write(path: Path, secret: str, *, replace: bool) -> str:
    """Write the file in one step and return what it then holds.

    Without ``replace`` a file that another server of the same home wrote first is kept. The
    temporary file is 0600 from its creation, so the key is never readable by others.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".admin-key-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secret + "\n")
        if replace or (path.exists() and not path.read_text(encoding="ascii").strip()):
            temporary.replace(path)
        else:
            os.link(temporary, path)
        logger.info("wrote a new admin key to %s", path)
        return secret
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    finally:
        temporary.unlink(missing_ok=True)


def _register(database: Database, secret: str) -> bool:
    """Whether the key is valid, after making it known where it was not."""
    try:
        with database.transaction() as session:
            key = find_any_key(session, secret)
            if key is None:
                create_key(session, "admin", datetime.now(UTC), secret=secret)
            return key is None or key.revoked_at is None
    except IntegrityError:
        # Another server of the same home registered the same key between our look and our insert.
        with database.reading() as session:
            key = find_any_key(session, secret)
            return key is not None and key.revoked_at is None
