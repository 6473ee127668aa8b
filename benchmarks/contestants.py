"""The servers that are measured side by side: how each is started, filled and asked.

Both hold 100 resources of a service of the Clean Rooms family, created through boto3. Ours: training datasets.
moto's: collaborations, the resource whose Get and List come nearest among those that it has.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.client import HOST, Connection, Signer

RESOURCES = 100
_ACCOUNT = "111122223333"
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Contestant:
    name: str
    signer: Signer
    command: tuple[str, ...]
    """What starts it; the port is appended."""
    list_path: str
    environment: dict[str, str]
    announcement: Path | None = None
    """Where it writes the URL of its S3; None when that is the port of its API."""

    def start(self) -> Running:
        """Start it on a free port; returns at once."""
        port = _free_port()
        output = subprocess.DEVNULL
        started = time.perf_counter()
        process = subprocess.Popen(
            [*self.command, str(port)], stdout=output, stderr=output, env=os.environ | self.environment
        )
        return Running(self, process, port, started)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """It, ready, and stopped at the end."""
        server = self.start()
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()


@dataclass(frozen=True)
class Running:
    """A started contestant."""

    contestant: Contestant
    process: subprocess.Popen[bytes]
    port: int
    started: float

    def wait_until_ready(self) -> float:
        """Seconds from the start of the process to the first good answer to a signed List.

        Ours counts as ready only when its health check says that every part is up: API, worker and S3.
        """
        requests = [self.signed(self.contestant.list_path)]
        if self.contestant.signer.service == "cleanrooms-ml":
            requests.insert(0, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection = Connection(self.port)
        while requests:
            try:
                connection.ask(requests[0])
                requests.pop(0)
            except (OSError, RuntimeError) as error:
                if self.process.poll() is not None or time.perf_counter() - self.started > 60:
                    raise RuntimeError(f"{self.contestant.name} did not start") from error
                time.sleep(0.002)
        seconds = time.perf_counter() - self.started
        connection.close()
        return seconds

    def signed(self, path: str) -> bytes:
        return self.contestant.signer.get(self.port, path)

    def get_paths(self) -> list[str]:
        """The path of each resource's Get."""
        client = self._client(self.contestant.signer.service.replace("-", ""))
        if self.contestant.signer.service == "cleanrooms-ml":
            found = client.list_training_datasets(maxResults=RESOURCES)["trainingDatasets"]
            return ["/training-dataset/" + quote(entry["trainingDatasetArn"], safe="") for entry in found]
        return ["/collaborations/" + entry["id"] for entry in client.list_collaborations()["collaborationList"]]

    def fill(self) -> None:
        """Create the resources."""
        client = self._client(self.contestant.signer.service.replace("-", ""))
        for i in range(RESOURCES):
            if self.contestant.signer.service == "cleanrooms-ml":
                client.create_training_dataset(**_training_dataset(i))
            else:
                client.create_collaboration(**_collaboration(i))

    def use_s3(self) -> None:
        """Ask its S3 for the buckets: both servers load or start theirs with the first request."""
        path = self.contestant.announcement
        self._client("s3", path and json.loads(path.read_text())["s3Url"]).list_buckets()

    def _client(self, service: str, url: str | None = None) -> Any:
        import boto3

        signer = self.contestant.signer
        return boto3.client(
            service,
            endpoint_url=url or f"http://{HOST}:{self.port}",
            region_name=signer.region,
            aws_access_key_id=signer.access_key_id,
            aws_secret_access_key=signer.secret_access_key,
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def whiteroom(data_dir: Path, *options: str) -> Contestant:
    """Our server over a data directory that has one account, with its 100 resources in it."""
    environment = {"WHITEROOM_CONFIG": os.devnull}
    command = (sys.executable, "-m", "whiteroom", "serve", "--data-dir", str(data_dir), *options, "--port")
    key_file = data_dir / "benchmark-key.json"
    new = not key_file.exists()
    if new:
        create = [*command[:3], "account", "create", _ACCOUNT, "--name", "bench", "--json", "--data-dir", str(data_dir)]
        document = subprocess.run(create, check=True, capture_output=True, env=os.environ | environment).stdout
        key_file.write_bytes(document)
    key = json.loads(key_file.read_bytes())
    signer = Signer("cleanrooms-ml", key["accessKeyId"], key["secretAccessKey"])
    path = f"/training-dataset?maxResults={RESOURCES}"
    contestant = Contestant("whiteroom", signer, command, path, environment, data_dir / "server.json")
    if new:
        with contestant.running() as server:
            server.fill()
    return contestant


def moto() -> Contestant:
    signer = Signer("cleanrooms", "AKIAIOSFODNN7EXAMPLE", "benchmark")
    path = f"/collaborations?maxResults={RESOURCES}"
    return Contestant("moto", signer, (str(_BIN / "moto_server"), "-H", HOST, "-p"), path, {})


def _training_dataset(i: int) -> dict[str, Any]:
    types = {"user_id": "USER_ID", "item_id": "ITEM_ID", "timestamp": "TIMESTAMP"}
    return {
        "name": f"dataset-{i}",
        "description": "What visitors of a shop looked at.",
        "roleArn": f"arn:aws:iam::{_ACCOUNT}:role/whiteroom",
        "trainingData": [
            {
                "type": "INTERACTIONS",
                "inputConfig": {
                    "schema": [{"columnName": name, "columnTypes": [kind]} for name, kind in types.items()],
                    "dataSource": {"glueDataSource": {"databaseName": "shop", "tableName": "views"}},
                },
            }
        ],
    }


def _collaboration(i: int) -> dict[str, Any]:
    return {
        "name": f"collaboration-{i}",
        "description": "A shop and a publisher.",
        "creatorDisplayName": "shop",
        "creatorMemberAbilities": ["CAN_QUERY", "CAN_RECEIVE_RESULTS"],
        "queryLogStatus": "DISABLED",
        "members": [{"accountId": "444455556666", "displayName": "publisher", "memberAbilities": []}],
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
