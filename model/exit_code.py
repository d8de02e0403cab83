"""From an expected error of `python -m model` to one line and an exit code."""

import sys
from collections.abc import Callable

from model.disk import full_disk_named
from model.errors import InputError, TrainingError


def exit_code(run: Callable[[], None]) -> int:
    """Return 0, 1 when the work failed, 2 when the input cannot be used, 130 when interrupted."""
    try:
        with full_disk_named():
            run()
    except InputError as error:
        place = f" (at {', '.join(map(str, error.where))})" if error.where else ""
        return _fail(f"{error.code}: {error.detail}{place}", 2)
    except TrainingError as error:
        return _fail(f"{error.code}: {error.detail}", 1)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted", 130)
    return 0


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code
