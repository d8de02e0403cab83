"""Ends a child process with its parent, so that no trainer outlives its agent on a GPU."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class OrphanedError(RuntimeError):
    """The parent was gone before this process could ask to die with it."""


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process (SIGKILL) when the thread that started it ends.

    ``parent_pid`` is the id of the process that should be the parent; raises `OrphanedError` when
    it no longer is. Elsewhere than on Linux only that check is made, and the end of the pipe from
    the parent has to do the rest.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died before the call above; then nobody will send the signal.
    if os.getppid() != parent_pid:
        raise OrphanedError(f"process {parent_pid} is not the parent of this one any more")
