"""Child processes that never outlive the process that needs them, and the memory that there is for them.

Knows nothing of what the processes do. Linux tells a child of its parent's death (PR_SET_PDEATHSIG), also
when the parent was killed and could tell nobody; elsewhere the orderly ends below have to do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, signal_number: int = signal.SIGTERM) -> None:
    """Have this process signalled when its parent, the process `parent`, dies; exit at once if it has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above could take effect
        sys.exit(0)


def machine_memory() -> int:
    """Bytes of memory that this machine has, or this container may take."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups of version 2 and 1
        with suppress(OSError, ValueError):  # "max" is no number
            sizes.append(int((Path("/sys/fs/cgroup") / file).read_text()))
    return min(sizes)


def stop(process: subprocess.Popen[bytes], *, grace_seconds: float) -> None:
    """Ask a process to end (SIGTERM), and kill it when it has not after `grace_seconds`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
