"""Points between two steps of the server at which it can be made to kill itself.

Each stands for a SIGKILL that comes just there: `arm` replaces one function of the (forked)
server by one that kills the process before or after the real one.
"""

import itertools
import os
import signal
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from service.pages.study_pages import StudyPages
from service.queue import dispatch
from service.queue.asking import Asker
from service.queue.dispatch import Dispatcher
from service.queue.purge import Purge
from service.store import deletion
from studies.search.adapter import OptunaAdapter

Condition = Callable[..., bool]
"""Whether a call, by its arguments, is one to die at."""


def _any_call(*_: Any, **__: Any) -> bool:
    return True


def _of_a_completed_trial(*args: Any, **_: Any) -> bool:
    return "completed" in args


def _of_an_upload(path: Path, *_: Any) -> bool:
    return path.parent.name == "incoming"


POINTS: Mapping[str, tuple[str, Any, str, Condition]] = {
    "claimed, not asked": ("before", OptunaAdapter, "ask", _any_call),
    "asked, parameters not stored": ("after", OptunaAdapter, "ask", _any_call),
    "parameters stored, lease not written": ("after", Asker, "ensure_params", _any_call),
    "lease written, not answered": ("after", dispatch, "lease_document", _any_call),
    "epoch stored, not reported": ("before", OptunaAdapter, "report", _any_call),
    "renewed, not answered": ("after", Dispatcher, "renew", _any_call),
    "artifact in place, not recorded": ("after", Path, "replace", _of_an_upload),
    "result not recorded": ("before", Dispatcher, "finish", _any_call),
    "result recorded, not told": ("before", OptunaAdapter, "tell", _of_a_completed_trial),
    "told, not noted as told": ("after", OptunaAdapter, "tell", _of_a_completed_trial),
    "told, no page written": ("before", StudyPages, "refresh", _any_call),
    "result recorded, not answered": ("after", Dispatcher, "finish", _any_call),
}
"""Before or after which function of whose, and at which of its calls."""
PURGE_POINTS: Mapping[str, tuple[str, Any, str, Condition]] = {
    "one trial's files removed": ("after", Purge, "_remove_folder", _any_call),
    "all files removed, not noted": ("before", deletion, "forget_artifacts", _any_call),
    "nothing removed in Optuna": ("before", OptunaAdapter, "delete_study", _any_call),
    "removed in Optuna, our rows still there": ("after", OptunaAdapter, "delete_study", _any_call),
    "events removed, not committed": ("after", deletion, "forget_events", _any_call),
    "trials removed, not committed": ("after", deletion, "forget_trials", _any_call),
    "trials removed, purge not noted": ("before", deletion, "mark_purged", _any_call),
}
"""Likewise, in the order in which a deleted study goes."""


def arm(crash: str) -> None:
    """Make this process kill itself at a point of `POINTS` or `PURGE_POINTS`, or at
    ``before commit 7`` or ``after commit 7``: the seventh commit on any connection since the first
    claim came."""
    when, _, count = crash.partition(" commit ")
    if count:
        _arm_commit(when, int(count))
    else:
        _make_deadly(*{**POINTS, **PURGE_POINTS}[crash])


def _arm_commit(when: str, count: int) -> None:
    claims: list[object] = []
    commits = itertools.count(1)

    def note_claim(*_: Any, **__: Any) -> bool:
        claims.append(True)
        return False

    def is_the_one(*_: Any, **__: Any) -> bool:
        return bool(claims) and next(commits) == count

    _make_deadly("before", Dispatcher, "claim", note_claim)
    _make_deadly(when, DefaultDialect, "do_commit", is_the_one)


def _make_deadly(when: str, owner: Any, name: str, condition: Condition) -> None:
    real = getattr(owner, name)

    @wraps(real)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        doomed = condition(*args, **kwargs)
        if doomed and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*args, **kwargs)
        if doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, deadly)
