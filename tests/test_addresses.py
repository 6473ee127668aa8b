"""Addresses: what is listened on can be reached by the URL that is told."""

from __future__ import annotations

import socket
import urllib.parse

import pytest

from whiteroom import addresses


def _has_ipv6() -> bool:
    try:
        addresses.listen("::1", 0).close()
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0.0.0.0", pytest.param("::1", marks=IPV6), pytest.param("::", marks=IPV6)]
)
def test_a_listener_is_reached_by_its_url(host: str) -> None:
    with addresses.listen(host, 0) as listener:
        parts = urllib.parse.urlsplit(addresses.url(host, listener.getsockname()[1]))
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert addresses.url("::1", 8080) == "http://[::1]:8080"
    assert addresses.url("::", 8080) == "http://[::1]:8080"
    assert addresses.url("0.0.0.0", 8080) == "http://127.0.0.1:8080"
