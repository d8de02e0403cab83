"""A trainer of the standard library alone, so that starting one costs next to nothing.

It speaks the pipe of `service.worker.pipe` and learns nothing: a trial takes 0.07-0.33 s per epoch,
and how long exactly, as well as its value, follows from its configuration. With `EPOCH_S` in the
environment every epoch takes so long instead.
"""

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from chaos.quick_checkpoint import load, save
from service.worker.lifetime import OrphanedError, die_with_parent

SHORTEST_EPOCH_S = 0.07
LONGEST_EPOCH_S = 0.33
EPOCH_S = "QUICK_EPOCH_S"
ROWS_PER_CLASS = 10
_STEPS = 10_007


def draw(config: dict[str, Any], what: str) -> float:
    """A number in [0, 1) that is this configuration's own."""
    salt = sum(what.encode())
    mixed = int(config["seed"]) * 31 + int(float(config["learning_rate"]) * 1e9) * 17 + salt
    return mixed % _STEPS / _STEPS


def value_of(config: dict[str, Any]) -> float:
    """What the trial's objective comes to, exactly: audits compute it again."""
    return 0.25 + 0.5 * draw(config, "value")


class QuickTrainer:
    """Serves jobs from standard input until it ends, which kills the process."""

    def __init__(self) -> None:
        self._unread = b""

    def serve(self) -> None:
        self._say(type="ready", device={"kind": "cpu", "name": "quick"})
        while True:
            message = self._hear(None)
            if message is None:
                continue
            if message["type"] == "train":
                self._train(message)
            elif message["type"] == "evaluate":
                self._finish(message)
            elif message["type"] == "keep":
                folder = Path(message["folder"])
                folder.mkdir()
                (folder / "weights").write_text(message["job"])
                self._say(type="kept", job=message["job"])

    def _train(self, job: dict[str, Any]) -> None:
        config, name = job["config"], job["job"]
        resumed = load(job["resume_path"])
        if resumed is not None:
            self._say(type="resumed", job=name, epochs=resumed)
        for epoch in range(config["epochs"]):
            stop = None if epoch < (resumed or 0) else self._waits(name, _epoch_s(config))
            finished = epoch
            if stop is None:
                self._say(type="epoch", job=name, epoch=epoch, metrics=_metrics(value_of(config)))
                stop, finished = self._decision(job, epoch + 1), epoch + 1
            if stop is not None:
                if stop.get("save"):
                    save(job["checkpoint_path"], finished)
                break
        self._finish(job, resumed_from_epoch=resumed)

    def _finish(self, job: dict[str, Any], **info: Any) -> None:
        Path(job["predictions_path"]).write_text("row,true,predicted,probability\n")
        finding = _finding(value_of(job["config"]), job["labels"])
        self._say(type="finished", job=job["job"], **finding, info=info)

    def _waits(self, job: str, seconds: float) -> dict[str, Any] | None:
        """Spend the time of an epoch; the agent's word if it says stop meanwhile."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            message = self._hear(left_s)
            if message is not None and message["type"] == "stop" and message["job"] == job:
                return message
        return None

    def _decision(self, job: dict[str, Any], finished: int) -> dict[str, Any] | None:
        """Wait for the answer to an epoch; the agent's word if it is to stop."""
        while True:
            message = self._hear(None)
            if message is None or message["job"] != job["job"]:
                continue
            if message["type"] == "stop" or message.get("decision") == "stop":
                return message
            if message["type"] == "decide":
                if message["decision"] == "save":
                    save(job["checkpoint_path"], finished)
                    self._say(type="saved", job=job["job"], epochs=finished)
                return None

    def _hear(self, timeout_s: float | None) -> dict[str, Any] | None:
        """The agent's next message; None when it says none in time."""
        while b"\n" not in self._unread:
            readable, _, _ = select.select([0], [], [], timeout_s)
            if not readable:
                return None
            block = os.read(0, 1 << 16)
            if not block:
                sys.exit(0)
            self._unread += block
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _say(self, **message: Any) -> None:
        os.write(1, json.dumps(message).encode() + b"\n")


def _epoch_s(config: dict[str, Any]) -> float:
    drawn_s = SHORTEST_EPOCH_S + (LONGEST_EPOCH_S - SHORTEST_EPOCH_S) * draw(config, "time")
    return float(os.environ.get(EPOCH_S, drawn_s))


def _metrics(value: float) -> dict[str, float]:
    return {"macro_f1": value, "accuracy": value, "loss": 1 - value}


def _finding(value: float, labels: list[str]) -> dict[str, Any]:
    """Every row right; ten per class."""
    scores = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": ROWS_PER_CLASS}
    size = range(len(labels))
    matrix = [[ROWS_PER_CLASS * (row == column) for column in size] for row in size]
    return {
        "value": value,
        "best_epoch": 0,
        "metrics": _metrics(value),
        "per_class": [{"label": label, **scores} for label in labels],
        "confusion": {"labels": labels, "matrix": matrix},
    }


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent decides when a trainer ends
    try:
        die_with_parent(int(sys.argv[sys.argv.index("--parent") + 1]))
    except OrphanedError:
        return 1
    QuickTrainer().serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
