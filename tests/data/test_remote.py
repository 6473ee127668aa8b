"""The same files at S3 endpoints: a moto server and rclone's `serve s3`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.conftest import ADVERTISER, OWNERS, PUBLISHER, s3_client
from whiteroom.config import Settings
from whiteroom.data.errors import DataError
from whiteroom.data.files import AccountFiles, Files


@pytest.fixture
def remote(endpoint: Settings) -> AccountFiles:
    return Files.from_settings(endpoint, OWNERS.get).as_account(PUBLISHER)


def code(call, *arguments) -> str:
    with pytest.raises(DataError) as failure:
        call(*arguments)
    return failure.value.status_code


@pytest.mark.parametrize("key", ["plain", "out/a b ü+%&=#?/日本.csv", "50%25 done"])
def test_a_file_is_written_listed_and_read(remote: AccountFiles, key: str) -> None:
    uri = f"s3://publisher-data/{key}"
    remote.write(uri, iter([b"one ", b"two"]))
    assert [(file.uri, file.size) for file in remote.list(uri)] == [(uri, 7)]
    with remote.open(uri) as file:
        file.seek(4)
        assert file.read() == b"two"


def test_a_large_file_travels_in_parts(remote: AccountFiles) -> None:
    block = os.urandom(1_000_003)
    remote.write("s3://publisher-data/large", iter([block] * 40))
    with remote.open("s3://publisher-data/large") as file:
        assert file.read() == block * 40


def test_an_empty_file_can_be_written(remote: AccountFiles) -> None:
    remote.write("s3://publisher-data/empty", [])
    assert remote.list("s3://publisher-data/empty")[0].size == 0


def test_a_prefix_is_a_directory_and_hidden_names_are_left_out(remote: AccountFiles) -> None:
    for key in ("t/b", "t/a", "t/_SUCCESS", "t/x/c", "t-old/d", "top"):
        remote.write(f"s3://publisher-data/{key}", [b"x"])
    for prefix in ("t", "t/"):
        found = [file.uri.removeprefix("s3://publisher-data/") for file in remote.list(f"s3://publisher-data/{prefix}")]
        assert found == ["t/a", "t/b", "t/x/c"]
    assert len(remote.list("s3://publisher-data/")) == 5
    assert code(remote.list, "s3://publisher-data/to") == "INPUT_NOT_FOUND"


@pytest.mark.parametrize("key", ["absent", "absent/", "t/absent"])
def test_what_does_not_exist_is_said_not_to_be_there(remote: AccountFiles, key: str) -> None:
    assert code(remote.list, f"s3://publisher-data/{key}") == "INPUT_NOT_FOUND"
    assert code(remote.open, f"s3://publisher-data/{key.rstrip('/')}") == "INPUT_NOT_FOUND"


@pytest.mark.parametrize("blocks", [1, 30])
def test_a_write_whose_source_fails_changes_nothing(remote: AccountFiles, endpoint: Settings, blocks: int) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [bytes(1_000_000)] * blocks
        raise FileNotFoundError("source")

    remote.write("s3://publisher-data/k", [b"before"])
    with pytest.raises(FileNotFoundError, match="source"):
        remote.write("s3://publisher-data/k", chunks())
    with remote.open("s3://publisher-data/k") as file:
        assert file.read() == b"before"
    with pytest.raises(FileNotFoundError):
        remote.write("s3://publisher-data/new", chunks())
    assert [file.uri for file in remote.list("s3://publisher-data")] == ["s3://publisher-data/k"]
    if endpoint.s3_endpoint_url:
        client = s3_client(endpoint.s3_endpoint_url, "test-key", "test-secret")
        try:
            left = client.list_multipart_uploads(Bucket="publisher-data").get("Uploads", [])
        except client.exceptions.ClientError:  # rclone keeps no list of them
            return
        assert left == []


def test_another_accounts_bucket_is_denied(endpoint: Settings, remote: AccountFiles) -> None:
    remote.write("s3://publisher-data/k", [b"x"])
    stranger = Files.from_settings(endpoint, OWNERS.get).as_account(ADVERTISER)
    for uri in ("s3://publisher-data/k", "s3://publisher-data/absent", "s3://unheard-of/k"):
        assert code(stranger.open, uri) == "RESOURCE_ACCESS_DENIED"
        assert code(stranger.list, uri) == "RESOURCE_ACCESS_DENIED"
        assert code(stranger.write, uri, [b""]) == "RESOURCE_ACCESS_DENIED"


def test_a_bucket_that_the_endpoint_lacks_is_said_so(endpoint: Settings) -> None:
    account = Files.from_settings(endpoint, lambda bucket: PUBLISHER).as_account(PUBLISHER)
    assert code(account.list, "s3://only-in-the-table/k") == "INPUT_NOT_FOUND"
    assert code(account.write, "s3://only-in-the-table/k", [b"x"]) == "STORAGE_UNAVAILABLE"


def test_an_endpoint_that_refuses_the_server_or_is_down_is_unavailable(rclone: str, endpoint: Settings) -> None:
    for settings in (
        replace(endpoint, s3_endpoint_url=rclone, s3_secret_access_key="wrong"),
        replace(endpoint, s3_endpoint_url="http://127.0.0.1:9"),
    ):
        account = Files.from_settings(settings, OWNERS.get).as_account(PUBLISHER)
        assert code(account.list, "s3://publisher-data/k") == "STORAGE_UNAVAILABLE"
        assert code(account.open, "s3://publisher-data/k") == "STORAGE_UNAVAILABLE"
        assert code(account.write, "s3://publisher-data/k", [b"x"]) == "STORAGE_UNAVAILABLE"


def test_a_listing_goes_past_one_page(rclone: str, rclone_root: Path, settings: Settings) -> None:
    (rclone_root / "many-files" / "t").mkdir(parents=True)
    for number in range(2_100):
        (rclone_root / "many-files" / "t" / f"part-{number:05}").touch()
    endpoint = replace(
        settings, s3_endpoint_url=rclone, s3_access_key_id="test-key", s3_secret_access_key="test-secret"
    )
    account = Files.from_settings(endpoint, lambda bucket: PUBLISHER).as_account(PUBLISHER)
    assert len(account.list("s3://many-files/t/")) == 2_100
