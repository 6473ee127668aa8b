"""A host and a port: listening there, and how a client on this machine gets there. Knows no server and no client."""

from __future__ import annotations

import socket


def listen(host: str, port: int, *, backlog: int | None = None) -> socket.socket:
    """A listening socket; a `port` of 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=backlog)


def reachable(host: str) -> str:
    """The host itself, or for one that means every interface this machine's own address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is looked up, not listened on


def url(host: str, port: int) -> str:
    """The HTTP URL of what listens there, for a client on this machine."""
    host = reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
