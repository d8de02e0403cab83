"""One server per SQLite file: a second one would fail the first one's asks as left over.

Several servers share a PostgreSQL database, whose locks reach all of them; SQLite has none that do,
and none that work at all on a network file system.
"""

import fcntl
from pathlib import Path
from typing import IO

from sqlalchemy.engine import make_url

from service.local.startup_error import StartupError
from service.store.file_system import network_file_system


def claim_database(url: str) -> IO[bytes] | None:
    """Hold the SQLite file of ``url`` until the answer is closed or this process ends.

    None for other databases. Raises `StartupError` when another server holds the file, and before
    anything is made when it lies on a network file system.
    """
    database = sqlite_file(url)
    if database is None:
        return None
    _refuse_network(database)
    database.parent.mkdir(parents=True, exist_ok=True)
    claim = database.with_name(f"{database.name}.lock").open("wb")
    try:
        # The system drops this lock with its process, however that ends.
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claim.close()
        raise StartupError(
            f"Another server runs on {database}. Stop it, choose another --home, or set "
            "BERTUNE_DATABASE_URL to a PostgreSQL database, which several servers may share."
        ) from None
    return claim


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database, None for any other."""
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    return Path(str(parsed.database)) if is_file else None


def _refuse_network(database: Path) -> None:
    kind = network_file_system(database)
    if kind is not None:
        raise StartupError(
            f"{database} lies on a network file system ({kind}), where SQLite loses data. Choose a "
            "--home on a disk of this machine, or set BERTUNE_DATABASE_URL to such a place "
            "(sqlite:////var/lib/bertune.db) or to a PostgreSQL database."
        )
