"""A real server for the demo: the one that runs on the data directory, else one of its own on free ports."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from whiteroom import config, datadir, processes
from whiteroom.config import PREFIX, Settings
from whiteroom.datadir import Running
from whiteroom.problems import Problem

_START_SECONDS = 30.0


def settings(data_dir: Path) -> Settings:
    """Everything by default but the directory: a demo shows the product, not somebody's set-up of it."""
    return config.load({PREFIX + "CONFIG": os.devnull}, data_dir=data_dir, port=0, s3_port=0)


@contextmanager
def serving(settings: Settings) -> Iterator[Running]:
    """The addresses of a server that is ready. Raises Problem when it does not get there; its words say why."""
    found = datadir.running(settings.data_dir)
    if found is not None:
        if found.s3_url is None:
            raise Problem(f"The server on {settings.data_dir} runs without its embedded S3; the demo needs it.")
        yield found
        return
    log = settings.data_dir / "server.log"
    datadir.prepare(settings.data_dir)
    command = [sys.executable, "-m", "whiteroom", "serve", "--parent", str(os.getpid())]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)} | settings.to_environment()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield _await_ready(process, settings, log)
    finally:
        processes.stop(process, grace_seconds=10)


def _await_ready(process: subprocess.Popen[bytes], settings: Settings, log: Path) -> Running:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        running = datadir.running(settings.data_dir)
        if running is not None and _ready(running):
            return running
        time.sleep(0.02)
    raise Problem(f"The server did not start. It said:\n{log.read_text('utf-8', 'replace').strip()}")


def _ready(running: Running) -> bool:
    connection = http.client.HTTPConnection(urlsplit(running.api_url).netloc, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
