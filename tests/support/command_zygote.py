"""A process that has imported the command line, and forks one for each command that a test runs.

Starting Python and importing takes a second or more, a fork milliseconds; what runs is a process
of its own with files of its own as its output, as for a person. `command_line` is the other end of
its pipes: one JSON object per line. It ends with its standard input.
"""

import gc
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import service.commands.lookup
import service.commands.spec_file
import service.terminal.confusion_drawing
import service.terminal.failures
import service.terminal.views
import service.terminal.watching  # noqa: F401 - commands import these when they run
from service.cli import main


def serve() -> None:
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise RuntimeError(f"{threads} threads run before the first fork")
    gc.freeze()
    _say({"ready": True})
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
        _, status = os.waitpid(pid, 0)
        _say({"code": os.waitstatus_to_exitcode(status)})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _become(request: dict[str, Any]) -> NoReturn:
    code = 1
    try:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        for path, target in zip(request["streams"], (0, 1, 2), strict=True):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.dup2(file, target)
        sys.argv = ["bertune", *request["arguments"]]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a test looks for it in what was said
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
