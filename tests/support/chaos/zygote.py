"""A process that has imported the server and the agent, and forks real ones on request.

Starting Python and importing both takes seconds, a fork milliseconds: so a test can afford to kill
one every few hundred milliseconds. Nothing is opened and no thread runs here before a fork, so what
is forked is as good as started anew. `chaos.nursery` is the other end of its pipes: one JSON object
per line. Its children die with it.
"""

import gc
import json
import logging
import os
import random
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import optuna_dashboard  # noqa: F401 - the server imports it when it is built, which takes a second
from sqlalchemy.orm import configure_mappers

from chaos.roles import ROLES
from service.local.logs import set_up_logging
from service.worker.lifetime import OrphanedError, die_with_parent


def main() -> int:
    """Serve requests until standard input ends."""
    try:
        die_with_parent(int(sys.argv[1]))
    except OrphanedError:
        return 1
    configure_mappers()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise RuntimeError(f"{threads} threads run before the first fork")
    gc.collect()
    gc.freeze()  # else the first collection in every child copies all of these pages
    _answer({"ready": True})
    for line in sys.stdin:
        _answer(_serve(json.loads(line)))
    return 0


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    """``start`` forks a child; ``signal`` sends one; ``reap`` tells how a child ended, if it did.

    A child that died stays a zombie until it is reaped, so a signal never meets a stranger.
    """
    if request["do"] == "start":
        return {"pid": _start(request)}
    if request["do"] == "signal":
        os.kill(request["pid"], request["number"])
        return {}
    found, status = os.waitpid(request["pid"], 0 if request["wait"] else os.WNOHANG)
    return {"status": os.waitstatus_to_exitcode(status) if found else None}


def _start(request: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(request, parent)
    return pid


def _become(request: dict[str, Any], parent: int) -> NoReturn:
    """Run the role in this fresh child, and end with its status."""
    status = 1
    try:
        _take_own_streams(Path(request["log"]))
        die_with_parent(parent)
        random.seed()  # or every child would draw the same pauses
        set_up_logging()
        status = ROLES[request["role"]](**request["options"])
    except BaseException:  # noqa: BLE001 - the log is where a test looks
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)


def _take_own_streams(log: Path) -> None:
    """Nothing from the pipe of the zygote, everything said to ``log``."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((nothing, 0), (lines, 1), (lines, 2)):
        os.dup2(source, target)


if __name__ == "__main__":
    sys.exit(main())
