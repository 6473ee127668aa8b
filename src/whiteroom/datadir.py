"""The data directory as a server's home: made, held by one server at a time, and saying where that one listens.

Knows no HTTP and no database. `server.lock` is held (flock) while a server lives, however it ends;
`server.json` tells the command line of a running server its addresses.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from whiteroom.problems import Problem


@dataclass(frozen=True)
class Running:
    """The server that holds a data directory."""

    pid: int
    api_url: str
    s3_url: str | None
    """None where no embedded S3 endpoint runs."""


def prepare(data_dir: Path) -> None:
    """Make the directory where it is missing. Raises Problem when it cannot be written to."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"Cannot make the data directory {data_dir}: {error.strerror}.") from error
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise Problem(f"Cannot write to the data directory {data_dir}: permission denied.")


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold the directory for this process. Raises Problem, naming the other's pid, when it is held."""
    prepare(data_dir)
    try:
        lock = (data_dir / "server.lock").open("a+")
    except OSError as error:
        raise Problem(f"Cannot write to the data directory {data_dir}: {error.strerror}.") from error
    with lock:
        if not _locked(lock, patience_seconds=0.3):
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise Problem(f"A server with pid {pid} already serves {data_dir}; stop it, or give another --data-dir.")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            (data_dir / "server.json").unlink(missing_ok=True)


def _locked(lock: IO[str], *, patience_seconds: float) -> bool:
    # `running` holds the lock for an instant, so one refusal proves nothing.
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def announce(data_dir: Path, running: Running) -> None:
    """Write server.json, whole or not at all."""
    temporary = data_dir / f".server.json.{os.getpid()}"
    temporary.write_text(json.dumps({_CAMEL[k]: v for k, v in asdict(running).items()}, indent=2) + "\n")
    temporary.replace(data_dir / "server.json")


def running(data_dir: Path) -> Running | None:
    """The server that holds the directory now; None when there is none, or one that is still starting."""
    try:
        with (data_dir / "server.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody holds it: a server.json that lies there was left by one that was killed
    except BlockingIOError:
        pass
    except OSError:
        return None
    try:
        document = json.loads((data_dir / "server.json").read_text())
        return Running(**{name: document[camel] for name, camel in _CAMEL.items()})
    except (OSError, ValueError, KeyError):
        return None


_CAMEL = {"pid": "pid", "api_url": "apiUrl", "s3_url": "s3Url"}
