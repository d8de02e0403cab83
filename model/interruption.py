"""Ctrl-C and SIGTERM as a request to save and stop, for a run that can be continued."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.train_result import Stop


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], Stop]]:
    """Yield what `train` takes as ``should_stop``. A second signal ends the process at once.

    Only the main thread may enter, as only it receives signals.
    """
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, earlier[number])

    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    earlier = {number: signal.signal(number, ask) for number in signals}
    try:
        yield lambda: "after_saving" if asked else "no"
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
