"""A full disk has a name of its own, because people can do something about it."""

import contextlib
import errno
from collections.abc import Iterator

from safetensors import SafetensorError

from model.errors import TrainingError

FREE_SPACE = "Free some space on the disk that holds the folder, or use another one."


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk, or the user's share of it, is full; safetensors tells it in words only."""
    if isinstance(error, SafetensorError):
        return f"(os error {errno.ENOSPC})" in str(error) or f"(os error {errno.EDQUOT})" in str(
            error
        )
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def full_disk_named() -> Iterator[None]:
    """Turn a write that found no room into `TrainingError` ``disk_full``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        raise TrainingError("disk_full", f"{error}. {FREE_SPACE}") from error
