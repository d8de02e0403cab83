"""The agent's end of a trainer process: start it, talk to it, hear of its death.

Two threads read the process's output for as long as it lives: messages from its standard output,
log lines from its standard error.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from service.worker.pipe import FromTrainer, PipeError, ToTrainer, decode_from_trainer, encode

log = logging.getLogger(__name__)

TAIL_LINES = 50
MEMORY_KEPT = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        f"glibc.malloc.mmap_threshold={32 << 20}",
        f"glibc.malloc.trim_threshold={1 << 40}",
    )
)
"""A step on a CPU takes and frees the same memory again and again. By its defaults glibc gives it
back to the system, which hands it out page by page and zeroed: a twelfth of a MiniLM step. Blocks
of over 32 MiB, such as a data set's, still go back."""
SHAPES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
SHAPES_KEPT = "4096"
"""How many kernels oneDNN keeps compiled. Batches of differing lengths use up its default of 1,024
within a few trials, and then it compiles at every step again: a second per MiniLM trial of 2,000
rows. Four times as many took no memory that could be measured."""
_DEATH_S = 5.0
"""How long a killed process may take to be reaped."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone; ``status`` as `subprocess` gives it, ``tail`` its last log lines."""

    status: int
    tail: str

    @property
    def reason(self) -> str:
        """For example ``was killed by SIGSEGV``."""
        if self.status >= 0:
            return f"exited with status {self.status}"
        return f"was killed by {signal.Signals(-self.status).name}"

    @property
    def killed(self) -> bool:
        """Whether it was SIGKILL."""
        return self.status == -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Wake:
    """Nobody's message: whoever receives should look around."""


class TrainerProcess:
    """A running trainer. Start it from the main thread: it dies with the thread that did."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], *, slot: int) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            process_group=0,  # Ctrl-C in the agent's terminal is the agent's alone
        )
        self._slot = slot
        self._killed = False
        self._messages: SimpleQueue[FromTrainer | Exited | Wake] = SimpleQueue()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._on_line: Callable[[str], None] | None = None
        self._send_lock = threading.Lock()
        self._log_reader = threading.Thread(target=self._read_log, daemon=True)
        self._message_reader = threading.Thread(target=self._read_messages, daemon=True)
        self._log_reader.start()
        self._message_reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be worked with: a killed process may take seconds to be gone."""
        return not self._killed and self._process.poll() is None

    def send(self, message: ToTrainer) -> None:
        """Say something; a process that died meanwhile is heard of through `receive`."""
        assert self._process.stdin is not None
        try:
            with self._send_lock:
                self._process.stdin.write(encode(message))
                self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # dead, or closed by `kill`
            log.debug("slot %d: trainer %d takes no %s", self._slot, self.pid, message.type)

    def receive(self, timeout_s: float | None = None) -> FromTrainer | Exited | Wake:
        """Wait for the next message. Raises `TimeoutError`."""
        try:
            return self._messages.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError from None

    def wake(self) -> None:
        """Let the thread in `receive` look around."""
        self._messages.put(Wake())

    def log_to(self, on_line: Callable[[str], None] | None) -> None:
        """Hand log lines to ``on_line`` too, from the reading thread; None ends that."""
        self._on_line = on_line

    def kill(self) -> None:
        """SIGKILL the process and its children, and reap it. May be called again."""
        self.begin_kill()
        try:
            self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:  # deep in a driver; it computes no more
            log.error("slot %d: trainer %d is killed but not gone", self._slot, self.pid)
            return
        for reader in (self._message_reader, self._log_reader):
            reader.join(_DEATH_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # a message that the dead process never took
                continue

    def begin_kill(self) -> None:
        """SIGKILL the process and its children without waiting, from any thread."""
        self._killed = True
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it was reaped just now
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read_messages(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._messages.put(decode_from_trainer(line))
            except PipeError as error:
                # A trainer that talks nonsense cannot be worked with: let it die as a crash.
                self._note_line(str(error))
                self.begin_kill()
                break
        status = self._process.wait()
        self._log_reader.join(_DEATH_S)
        self._messages.put(Exited(status, "\n".join(self._tail)))

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._note_line(line.decode(errors="replace").rstrip())

    def _note_line(self, line: str) -> None:
        self._tail.append(line)
        log.info("slot %d trainer: %s", self._slot, line)
        on_line = self._on_line
        if on_line is not None:
            on_line(line)


def trainer_command(
    module: str, *, device: str, slot: int, threads: int, cache_bytes: int
) -> list[str]:
    """The command line of a trainer; ``-P`` so that no file where the agent was started from
    takes the place of a package."""
    return [
        *(sys.executable, "-P", "-m", module),
        *("--parent", str(os.getpid()), "--device", device, "--slot", str(slot)),
        *("--threads", str(threads), "--cache-bytes", str(cache_bytes)),
    ]


def trainer_env(env: Mapping[str, str], threads: int) -> dict[str, str]:
    """The environment of a trainer: thread counts must be known before torch is loaded, how memory
    is kept before Python is, and the server's key is none of its business."""
    count = str(threads)
    kept = {name: value for name, value in env.items() if name != "BERTUNE_KEY"}
    return {
        **kept,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,
        "HF_HUB_OFFLINE": "1",  # the agent fetches models; the trainer reads folders
        "PYTHONUNBUFFERED": "1",
        "GLIBC_TUNABLES": env.get("GLIBC_TUNABLES", MEMORY_KEPT),
        SHAPES: env.get(SHAPES, SHAPES_KEPT),
    }
