"""One connection: uvicorn's HTTP/1.1 with bounds on a request's head, which uvicorn itself has none for.

Strangers reach this code before any signature is read.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
"""What a request's target and headers may have together."""
HEAD_SECONDS = 60
"""How long a client may take to send them, from the connection or the first byte on."""


class HeadTooLarge(ValueError):
    """Raised to the parser, which has uvicorn answer 400 and close."""


class Protocol(HttpToolsProtocol):
    """What `uvicorn.Config(http=...)` takes."""

    _waits = False
    """Whether a head has begun and not ended."""
    _begun = False
    """Whether one began in the present read."""
    _size = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._begun = False
        super().data_received(data)
        # Not for the parser to count: it tells of a header only when it has the whole of it.
        if self._waits and not self._begun:
            self._size += len(data)
            if self._size > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The request's headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._waits, self._begun, self._size = True, True, 0
        if self._timer is None:
            self._start_timer()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > HEAD_BYTES:
            raise HeadTooLarge

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) + len(value) > HEAD_BYTES:
            raise HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._waits = False
        self._stop_timer()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            raise HeadTooLarge
        super().on_headers_complete()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
