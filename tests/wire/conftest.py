"""A service over a real socket, and boto3 clients for it."""

import socket
import threading
import time
from datetime import UTC, datetime

import boto3
import pytest
import uvicorn
from botocore.config import Config

from tests.wire.small_service import KEY, MAX_BODY_BYTES, THREADS, Ledger, operations_of_the_test
from whiteroom.wire.protocol import Protocol
from whiteroom.wire.service import Service


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def url(ledger):
    service = Service(
        transaction=ledger.transaction,
        lookup={KEY.access_key_id: KEY}.get,
        context="the context",
        on_denied=lambda call, error: ledger.denied.append((call, error)),
        health=lambda: (ledger.ready, {"ready": ledger.ready, "at": datetime.now(UTC).isoformat()}),
        max_body_bytes=MAX_BODY_BYTES,
        threads=THREADS,
        registry=operations_of_the_test(),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(service, loop="uvloop", http=Protocol, lifespan="on", log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(url):
    """Makes a boto3 client; of `cleanroomsml` and the known key unless told."""

    def make(service="cleanroomsml", *, secret=KEY.secret_access_key, key=KEY.access_key_id, **config):
        return boto3.client(
            service,
            endpoint_url=url,
            region_name="eu-west-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}, **config),
        )

    return make
