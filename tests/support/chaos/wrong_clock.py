"""Makes this process believe in another time, as on a machine whose clock is wrong.

What is loaded already asks Python for the time by the names it imported; so those are replaced,
in `time` for everybody, and `datetime` in our own modules.
"""

import datetime as real
import sys
import time

OURS = ("model.", "studies.", "service.")


def set_clock_wrong(ahead_s: float) -> None:
    """From now on the clock goes ``ahead_s`` before the true one. Waiting takes as long as ever."""
    if ahead_s:
        _shift_time(ahead_s)
        _shift_datetime(real.timedelta(seconds=ahead_s))


def _shift_time(ahead_s: float) -> None:
    true_time, true_time_ns = time.time, time.time_ns
    time.time = lambda: true_time() + ahead_s
    time.time_ns = lambda: true_time_ns() + int(ahead_s * 1e9)


def _shift_datetime(ahead: real.timedelta) -> None:
    class Shifted(real.datetime):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> real.datetime:  # type: ignore[override]
            return real.datetime.now(tz) + ahead

    for name, module in list(sys.modules.items()):
        if name.startswith(OURS) and getattr(module, "datetime", None) is real.datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]
