"""One server: the API in this process, a worker process and the embedded S3 beside it, together up and down.

Knows no operation. Whatever ends this process, SIGKILL included, ends the other two with it.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

from whiteroom import __version__, addresses, app, datadir, processes
from whiteroom.problems import Problem

if TYPE_CHECKING:
    from whiteroom.config import Settings
    from whiteroom.data.s3 import EmbeddedS3
    from whiteroom.store.database import Database
    from whiteroom.wire.service import Service

_STOP_SECONDS = 3.0
"""How long requests being answered may take to end."""
_WORKER_STOP_SECONDS = 10.0
"""How long the worker may take to end its jobs and give them back; it is usually done at once."""


def serve(settings: Settings, *, parent: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the process `parent` dies; then exit with code 0.

    Raises
    ------
    Problem : the data directory is held or cannot be written, a port is taken, the database does not answer.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    if parent is not None:
        processes.end_with_parent(parent)
    with ExitStack() as ending:
        ending.enter_context(datadir.held(settings.data_dir))
        listener = ending.enter_context(_listener(settings.host, settings.port))
        database = app.open_database(settings)
        ending.callback(database.close)
        keys = app.Keys(database, app.secret_box(settings))
        keys.check()
        s3 = _start_s3(settings, keys) if settings.s3_port != -1 else None
        if s3:
            ending.callback(s3.stop)
        worker = Worker(settings) if settings.workers else None
        room = app.build(settings, database)
        service = app.service(room, keys, health=lambda: _health(database, worker, s3))
        if worker:  # last: it has a longer way to go than the API has left, and would slow that down
            worker.start()
            ending.callback(worker.stop)
        api_url = addresses.url(settings.host, listener.getsockname()[1])
        s3_url = addresses.url(settings.host, s3.port) if s3 else None
        running = datadir.Running(os.getpid(), api_url, s3_url)
        datadir.announce(settings.data_dir, running)
        ending.callback(_ignore_signals)  # the first to run: nothing may interrupt the end
        _greet(settings, running)
        _answer_requests(service, listener)


class Worker:
    """The worker process, started again when it ends unasked: at once, then after longer and longer pauses."""

    def __init__(self, settings: Settings) -> None:
        self._command = [sys.executable, "-m", "whiteroom", "worker", "--parent", str(os.getpid())]
        self._environment = os.environ | settings.to_environment()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._unsteady = False
        # The parent whose death ends the worker is the thread that starts it: one that stays.
        self._keeper = threading.Thread(target=self._keep, name="worker-keeper", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether it runs, and is not one of a row that ended soon after their start."""
        return self._process is not None and self._process.poll() is None and not self._unsteady

    def start(self) -> None:
        self._keeper.start()

    def stop(self) -> None:
        """End it: it gives its jobs back first."""
        with self._lock:
            self._stopping.set()
        if self._process is not None:
            processes.stop(self._process, grace_seconds=_WORKER_STOP_SECONDS)
        self._keeper.join()

    def _keep(self) -> None:
        pause = 0.1
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                # A session of its own: Ctrl-C in the terminal reaches the server, which ends the rest in order.
                self._process = process = subprocess.Popen(
                    self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
                )
            started = time.monotonic()
            try:
                process.wait(timeout=5 if self._unsteady else None)
            except subprocess.TimeoutExpired:
                self._unsteady = False
                process.wait()
            if self._stopping.is_set():
                return
            self._unsteady = time.monotonic() - started < 5
            pause = min(pause * 2, 10.0) if self._unsteady else 0.1
            _log(f"the worker ended with code {process.returncode}; starting another in {pause:.1f} s")
            self._stopping.wait(pause)


def _start_s3(settings: Settings, keys: app.Keys) -> EmbeddedS3:
    from whiteroom.data.s3 import EmbeddedS3, EmbeddedS3Error

    s3 = EmbeddedS3(settings, keys)
    try:
        s3.start()
    except EmbeddedS3Error as error:
        raise Problem(str(error)) from error
    return s3


def _health(database: Database, worker: Worker | None, s3: EmbeddedS3 | None) -> tuple[bool, dict[str, Any]]:
    """Whether everything is up, and the state of each part: ready, not ready, or off by the settings."""
    states = {"api": "ready", "database": "ready" if _answers(database) else "not ready"}
    for name, part in (("worker", worker), ("s3", s3)):
        states[name] = "off" if part is None else "ready" if part.ready else "not ready"
    ready = "not ready" not in states.values()
    return ready, {"status": "ready" if ready else "not ready", "components": states}


def _answers(database: Database) -> bool:
    from sqlalchemy.exc import DBAPIError

    try:
        with database.read() as tx:
            tx.exec_driver_sql("SELECT 1")
    except DBAPIError:
        return False
    return True


def _listener(host: str, port: int) -> socket.socket:
    try:
        return addresses.listen(host, port, backlog=2048)
    except OSError as error:
        why = {
            errno.EADDRINUSE: f"port {port} is in use. Give another --port, or 0 for a free one.",
            errno.EACCES: f"port {port} is reserved for the system. Give a --port above 1023.",
        }.get(error.errno or 0, f"{error.strerror or error}. Give another --host.")
        raise Problem(f"The API cannot listen on {host}: {why}") from error


def _answer_requests(service: Service, listener: socket.socket) -> None:
    import uvicorn

    from whiteroom.wire.protocol import Protocol

    configuration = uvicorn.Config(
        service,
        loop="uvloop",
        http=Protocol,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(_STOP_SECONDS),
    )
    gc.collect()
    gc.freeze()  # models and modules stay: no collection need walk through them again
    # After SIGTERM this raises the signal once more when the last request is answered: `_stop` ends the process.
    uvicorn.Server(configuration).run(sockets=[listener])


def _greet(settings: Settings, running: datadir.Running) -> None:
    lines = (
        f"Whiteroom {__version__}",
        f"  API   {running.api_url}   (GET /healthz answers 200 when all is ready)",
        f"  S3    {running.s3_url or settings.s3_endpoint_url or 'off'}",
        f"  data  {settings.data_dir.absolute()}",
        "  stop  Ctrl-C",
    )
    print("\n".join(lines), flush=True)  # noqa: T201


def _log(line: str) -> None:
    print(f"whiteroom: {line}", file=sys.stderr, flush=True)  # noqa: T201


def _stop(_number: int, _frame: Any) -> NoReturn:
    raise SystemExit(0)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
