"""One server per SQLite file: a second one would fail the first one's asks as left over.

Several servers share a PostgreSQL database, whose locks reach all of them; SQLite has none that do.
"""

import fcntl
from pathlib import Path
from typing import IO

from sqlalchemy.engine import make_url

from service.local.startup_error import StartupError


def claim_database(url: str) -> IO[bytes] | None:
    """Hold the SQLite file of ``url`` until the answer is closed or this process ends.

    None for other databases. Raises `StartupError` when another server holds the file.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    database = Path(parsed.database)
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
