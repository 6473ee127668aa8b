"""A load generator that costs little: signed requests on keep-alive connections, one process for each connection.

Knows no server. Requests are signed by botocore before the clock starts and are good for five minutes; each is
verified anew by a server that verifies signatures.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Signer:
    """One access key, as a client of one service on one port holds it."""

    service: str
    """The service's name in the signature's credential scope."""
    access_key_id: str
    secret_access_key: str
    region: str = "us-east-1"

    def get(self, port: int, path: str) -> bytes:
        """A signed GET request as it goes over the wire."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest("GET", f"http://{HOST}:{port}{path}")
        SigV4Auth(Credentials(self.access_key_id, self.secret_access_key), self.service, self.region).add_auth(request)
        headers = {"Host": f"{HOST}:{port}", **dict(request.headers)}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode()


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> bytes:
        """The answer's body. Raises OSError without an answer, RuntimeError for any other than 200."""
        if self._socket is None:
            self._socket = socket.create_connection((HOST, self._port), timeout=30)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        head, end, body = self._more().partition(b"\r\n\r\n")
        while not end:
            head, end, body = (head + self._more()).partition(b"\r\n\r\n")
        fields = head.lower()
        size = int(fields.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        while len(body) < size:
            body += self._more()
        if b"\r\nconnection: close" in fields:
            self.close()
        if fields.split(b" ", 2)[1] != b"200":
            raise RuntimeError(f"{head.decode('latin-1')}\n{body.decode(errors='replace')}")
        return body

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _more(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(1 << 18)
        if not data:
            self.close()
            raise ConnectionResetError("the server closed the connection")
        return data


def load(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> list[float]:
    """Ask for `seconds` on each of the connections, the requests in turn; each answer's latency in seconds."""
    with multiprocessing.get_context("fork").Pool(connections) as pool:
        return list(chain(*pool.starmap(_ask, [(port, requests, seconds)] * connections, chunksize=1)))


def _ask(port: int, requests: Sequence[bytes], seconds: float) -> list[float]:
    connection = Connection(port)
    latencies = []
    upcoming = cycle(requests)
    connection.ask(next(upcoming))  # the connection is made before the clock starts
    start = now = time.perf_counter()
    while now - start < seconds:
        connection.ask(next(upcoming))
        before, now = now, time.perf_counter()
        latencies.append(now - before)
    return latencies
