"""Buckets of two accounts: in a directory, at a moto server, at an rclone server."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from whiteroom.config import Settings
from whiteroom.data.files import AccountFiles, Files
from whiteroom.data.s3 import rclone_path

PUBLISHER = "111122223333"
ADVERTISER = "444455556666"
OWNERS = {"publisher-data": PUBLISHER, "advertiser-data": ADVERTISER}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """The directory of the publisher's bucket."""
    path = tmp_path / "s3" / PUBLISHER / "publisher-data"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def files(settings: Settings) -> Files:
    return Files.from_settings(settings, OWNERS.get)


@pytest.fixture
def publisher(files: Files, bucket: Path) -> AccountFiles:
    return files.as_account(PUBLISHER)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of a moto server."""
    from moto.server import ThreadedMotoServer  # slow to import, and few tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def rclone_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rclone")


@pytest.fixture(scope="session")
def rclone(rclone_root: Path) -> Iterator[str]:
    """The URL of an rclone server that stores objects in `rclone_root`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [
        str(rclone_path()),
        "serve",
        "s3",
        "--config=",
        "--dir-cache-time=1ms",
        f"--addr=127.0.0.1:{port}",
        "--auth-key=test-key,test-secret",
    ]
    server = subprocess.Popen([*command, str(rclone_root)], stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


@pytest.fixture(params=["moto", "rclone"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an S3 endpoint that holds both accounts' buckets, empty."""
    url = request.getfixturevalue(request.param)
    settings = Settings(
        data_dir=tmp_path, s3_endpoint_url=url, s3_access_key_id="test-key", s3_secret_access_key="test-secret"
    )
    client = s3_client(url, "test-key", "test-secret")
    made = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in OWNERS:
        if name not in made:
            client.create_bucket(Bucket=name)
        for entry in client.list_objects_v2(Bucket=name).get("Contents", ()):
            client.delete_object(Bucket=name, Key=entry["Key"])
    return settings


def s3_client(url: str, access_key_id: str, secret_access_key: str):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
    )


def open_files() -> int:
    """How many files, not sockets, this process holds open."""
    descriptors = Path("/proc/self/fd")
    return sum(each.readlink().is_absolute() for each in descriptors.iterdir() if each.is_symlink())
