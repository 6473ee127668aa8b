"""The ASGI app: from a socket to an operation's handler and back. Knows no clean room and no database.

Handlers are plain functions, registered with `@operation`; each runs inside one transaction that is given from
outside: in a thread, or for reads that wait for nothing (`Service`, `reads_wait`) in the event loop itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

from whiteroom.wire import codec, sigv4, spec
from whiteroom.wire.errors import COMMON_STATUS, ApiError
from whiteroom.wire.routes import Routes

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_SECONDS = 60
"""How long a client may take to send a body."""
DRAIN_BYTES = 256 * 1024 * 1024
"""How much of a body that is too large is read and thrown away, so that the client gets to see the answer."""


@dataclass(frozen=True)
class Call:
    """What a handler gets beside its validated input."""

    caller: sigv4.Caller
    operation: str
    service: str
    """Botocore's name: `cleanroomsml` or `cleanrooms`."""
    tx: Any
    """The open transaction."""
    scope: Any
    """What the operation's scope function returned; that one itself gets None."""
    context: Any
    """What the service was made with."""
    now: datetime
    """When the request came, aware, in UTC."""


Handler = Callable[[Call, dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True)
class Served:
    """An operation's handler, and the function that says what of the rooms it may touch."""

    handler: Handler
    scope: Callable[[Call], Any]


Registry = dict[tuple[str, str], Served]
"""The served operations by (service, name)."""

SERVED: Registry = {}


def operation(
    service: str, name: str, *, scope: Callable[[Call], Any], registry: Registry = SERVED
) -> Callable[[Handler], Handler]:
    """Register a handler. Raises ValueError for an operation that has one already.

    That the models have the operation is checked when a `Service` is made: a worker, which imports the handlers
    too, has no use for the models.
    """

    def register(handler: Handler) -> Handler:
        if (service, name) in registry:
            raise ValueError(f"{service} {name} has two handlers")
        registry[service, name] = Served(handler, scope)
        return handler

    return register


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    error: str = ""
    """The error's name; empty on success."""


class Service:
    """An ASGI app that serves the registered operations, and `GET /healthz`.

    Parameters
    ----------
    transaction : called with whether the operation writes (all but GET do); gives a context manager that
        commits, or rolls back when an exception passes through it.
    lookup : the credential of an access key id.
    context : handed to every handler.
    on_denied : told of an AccessDeniedException from a scope function or a handler, after the roll-back;
        the call's `tx` and `scope` are None.
    health : whether the server is ready, and a JSON document that says more.
    max_body_bytes : a larger request body is answered 413.
    reads_wait : whether GET operations wait for anything, such as a database behind a network. Where they only
        compute, they are answered in the event loop: a thread would take turns with it and cost as much again.
    threads : how many handlers run at one time, writers and waiting readers each.
    """

    def __init__(
        self,
        *,
        transaction: Callable[[bool], AbstractContextManager[Any]],
        lookup: Callable[[str], sigv4.Credential | None],
        context: Any,
        on_denied: Callable[[Call, ApiError], None],
        health: Callable[[], tuple[bool, Mapping[str, Any]]],
        max_body_bytes: int,
        reads_wait: bool = True,
        threads: int = 16,
        registry: Registry = SERVED,
    ) -> None:
        if unknown := registry.keys() - spec.operations().keys():
            raise ValueError(f"the service models have no operation {', '.join(map(' '.join, sorted(unknown)))}")
        self._transaction = transaction
        self._lookup = lookup
        self._context = context
        self._on_denied = on_denied
        self._health = health
        self._max_body_bytes = max_body_bytes
        self._reads_wait = reads_wait
        self._registry = registry
        self._routes = Routes(spec.operations().values())
        # Apart, so that no number of writers waiting for the database holds up who only reads.
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="api-read")
        self._writers = ThreadPoolExecutor(threads, thread_name_prefix="api-write")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            request_id = str(uuid4())
            answer = await self._serve(scope, receive, request_id)
            if answer is not None:
                await _send(send, answer, request_id)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        self._readers.shutdown()
        self._writers.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, request_id: str) -> Answer | None:
        """The answer to one request; None when the client has gone."""
        run = asyncio.get_running_loop().run_in_executor
        if scope["path"] == "/healthz" and scope["method"] in ("GET", "HEAD"):
            ready, document = await run(self._writers, self._health)
            return Answer(200 if ready else 503, json.dumps(document).encode())
        try:
            body = await self._body(scope, receive)
        except ApiError as error:
            return Answer(COMMON_STATUS[error.name], _message(error), error.name)
        if body is None:
            return None
        request = sigv4.HttpRequest(
            method=scope["method"],
            raw_path=scope["raw_path"].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            headers=tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]),
            body=body,
        )
        reads = request.method == "GET" and not body
        if reads and not self._reads_wait:
            return self._answer(request, request_id)
        return await run(self._readers if reads else self._writers, self._answer, request, request_id)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Read the body, holding at most `max_body_bytes` of it; None when the client has gone."""
        headers = dict(scope["headers"])
        limit = self._max_body_bytes
        too_large = int(headers.get(b"content-length", 0)) > limit
        waits = headers.get(b"expect", b"").lower() == b"100-continue"
        body = bytearray()
        size, more = 0, not (too_large and waits)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more and size < DRAIN_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    too_large = too_large or size > limit
                    if too_large:
                        body.clear()
                    else:
                        body += chunk
                    more = message.get("more_body", False)
        except TimeoutError:
            sentence = f"The body did not come within {BODY_SECONDS} seconds."
            raise ApiError("RequestTimeoutException", sentence) from None
        if too_large:
            raise ApiError("RequestEntityTooLargeException", f"A request body has at most {limit} bytes here.")
        return bytes(body)

    def _answer(self, request: sigv4.HttpRequest, request_id: str) -> Answer:
        found = None
        try:
            claimed = sigv4.claimed_signing_name(request)
            found, labels = self._routes.match(request.method, request.raw_path, claimed)
            now = datetime.now(UTC)
            caller = sigv4.verify(request, self._lookup, signing_name=found.signing_name, now=now)
            values = codec.parse(found, labels, request.query, request.body)
            return Answer(found.status, self._perform(found, caller, values, now))
        except ApiError as error:
            try:
                return _error_answer(found, error)
            except Exception:
                log.exception("request %s: its error cannot be answered", request_id)
        except Exception:
            log.exception("request %s failed", request_id)
        internal = found.errors.internal if found else "InternalServerException"
        return Answer(500, b'{"message":"The server failed; its log says why, under this request id."}', internal)

    def _perform(self, found: spec.Operation, caller: sigv4.Caller, values: dict[str, Any], now: datetime) -> bytes:
        served = self._registry.get((found.service, found.name))
        if served is None:
            message = f"Whiteroom does not serve {found.name} yet; docs/api-status.md lists what it serves."
            raise ApiError("NotImplementedException", message)
        call = partial(Call, caller, found.name, found.service, context=self._context, now=now)
        try:
            with self._transaction(found.method != "GET") as tx:
                scope = served.scope(call(tx=tx, scope=None))
                output = served.handler(call(tx=tx, scope=scope), values)
                return codec.dump(found, output)  # before the commit: it may refuse
        except ApiError as error:
            if error.name == "AccessDeniedException":
                self._on_denied(call(tx=None, scope=None), error)
            raise


def _error_answer(found: spec.Operation | None, error: ApiError) -> Answer:
    model = found and found.errors.by_name.get(error.name)
    if found and model:
        return Answer(model.status, codec.dump_error(model, error), error.name)
    return Answer(COMMON_STATUS[error.name], _message(error), error.name)


def _message(error: ApiError) -> bytes:
    return json.dumps({"message": error.message}).encode()


async def _send(send: Send, answer: Answer, request_id: str) -> None:
    headers = [(b"x-amzn-requestid", request_id.encode())]
    if answer.status != 204:
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body))]
    if answer.error:
        headers.append((b"x-amzn-errortype", answer.error.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
