"""Does the first steps of a server again while the database is away."""

import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from service.store.outage import is_unavailable

logger = logging.getLogger(__name__)

PATIENCE_S = 60.0
PAUSE_S = 1.0


def outlast(step: Callable[[], None], *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Run ``step`` until it ends well; it must change nothing when it is run again.

    Raises what it raises for any other reason, and once the database was away for `PATIENCE_S`.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return step()
        except SQLAlchemyError as error:
            if not is_unavailable(error) or time.monotonic() >= deadline:
                raise
            reason = " ".join(str(getattr(error, "orig", error)).split())
            logger.warning("The database is away: %s. Trying again.", reason)
        sleep(PAUSE_S)
