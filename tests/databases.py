"""The databases that tests run on: a file of SQLite, and a PostgreSQL server that lives for a test session."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from whiteroom.store.database import Database


class Cluster:
    """A throw-away PostgreSQL server on a Unix socket. `kill` is SIGKILL to every process of it."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._root = Path(tempfile.mkdtemp(prefix="wr-pg-", dir="/tmp"))
        self._user = _server_user() if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self._root, self._user)
        self._command: list[str | Path] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._names = (f"test_{i}" for i in itertools.count())
        initdb = [binaries / "initdb", "-D", self._root / "data", "-U", "whiteroom", "-A", "trust"]
        initdb += ["-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        self._run(initdb)

    def start(self) -> None:
        # fsync guards against a lost machine, not a lost process: a killed server's writes are in the page cache.
        options = {"listen_addresses": "", "unix_socket_directories": str(self._root), "fsync": "off"}
        options |= {"max_connections": "200", "shared_buffers": "32MB"}
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        self._command = [self._binaries / "postgres", "-D", self._root / "data", *flags]
        self._server = self._launch()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if subprocess.run([self._binaries / "pg_isready", "-q", "-h", self._root]).returncode == 0:
                return
            if self._server.poll() is not None:  # what is left of a killed one has not gone yet
                self._server = self._launch()
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL does not start:\n{(self._root / 'log').read_text()}")

    def kill(self) -> None:
        assert self._server is not None
        with contextlib.suppress(ProcessLookupError):
            # Stopped, it starts no more children: one that was left would keep the next server from starting.
            os.kill(self._server.pid, signal.SIGSTOP)
        for pid in [*_children(self._server.pid), self._server.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.wait()

    def new_database(self) -> str:
        """The URL of an empty database; in truth a schema, which is a hundred times quicker to make."""
        name = next(self._names)
        with psycopg.connect(host=str(self._root), user="whiteroom", dbname="postgres") as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql+psycopg://whiteroom@/postgres?host={self._root}&options=-csearch_path%3D{name}"

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def _launch(self) -> subprocess.Popen[bytes]:
        # As root PostgreSQL refuses to run; a session of its own keeps a Ctrl-C at the tests from it.
        with (self._root / "log").open("ab") as log:
            return subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._root, start_new_session=True, **self._as_user()
            )

    def _run(self, command: list[str | Path]) -> None:
        done = subprocess.run(command, cwd=self._root, capture_output=True, text=True, check=False, **self._as_user())
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def _as_user(self) -> dict[str, object]:
        if self._user is None:
            return {}
        entry = pwd.getpwnam(self._user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _server_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _binaries() -> Path | None:
    on_path = [shutil.which("initdb")]
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = [Path(p).resolve().parent for p in (*on_path, *reversed(installed)) if p]
    return found[0] if found else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's initdb is neither on PATH nor in /usr/lib/postgresql: apt install postgresql")
    cluster = Cluster(binaries)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty database."""
    return new_url(request, tmp_path)


def new_url(request: pytest.FixtureRequest, directory: Path) -> str:
    """The URL of a new, empty database of the kind that `request.param` names."""
    if request.param == "sqlite":
        return f"sqlite:///{directory}/whiteroom.db"
    cluster: Cluster = request.getfixturevalue("postgresql")
    return cluster.new_database()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A new database with the tables in it."""
    with migrated(database_url) as database:
        yield database


@contextmanager
def migrated(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate()
    yield database
    database.close()
