"""Locations, ownership and the directory storage, on real files."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import ADVERTISER, PUBLISHER, open_files
from whiteroom.config import Settings
from whiteroom.data.errors import DataError
from whiteroom.data.files import AccountFiles, FileInfo, Files, parse_s3_uri


def refusal(call, *arguments) -> tuple[str, str]:
    with pytest.raises(DataError) as failure:
        call(*arguments)
    return failure.value.status_code, failure.value.message


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://abc", ("abc", "")),
        ("s3://abc/", ("abc", "")),
        ("s3://abc/a/b/", ("abc", "a/b/")),
        ("s3://a.b-c/a b/ü/日本/😀%2B+&=#?.csv", ("a.b-c", "a b/ü/日本/😀%2B+&=#?.csv")),
        ("s3://abc/..hidden/...", ("abc", "..hidden/...")),
        ("s3://abc/" + "k" * 1024, ("abc", "k" * 1024)),
        ("s3://" + "b" * 63, ("b" * 63, "")),
    ],
)
def test_a_location_is_split_into_bucket_and_key(uri: str, parts: tuple[str, str]) -> None:
    assert parse_s3_uri(uri) == parts


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "begin with s3://"),
        ("/etc/passwd", "begin with s3://"),
        ("file:///etc/passwd", "begin with s3://"),
        ("S3://abc/k", "begin with s3://"),
        ("s3://", "must name a bucket"),
        ("s3:///etc/passwd", "must name a bucket"),
        ("s3://../k", "must name a bucket"),
        ("s3://a..b/k", "must name a bucket"),
        ("s3://Upper/k", "must name a bucket"),
        ("s3://.incoming/k", "must name a bucket"),
        ("s3://" + "b" * 64, "must name a bucket"),
        ("s3://abc\n/k", "must name a bucket"),
        ("s3://abc/../other", 'segment "."'),
        ("s3://abc/a/../../other", 'segment "."'),
        ("s3://abc/a/..", 'segment "."'),
        ("s3://abc/./k", 'segment "."'),
        ("s3://abc/%2e%2e/other", 'segment "."'),
        ("s3://abc/..%2fother", 'segment "."'),
        ("s3://abc/%252e%252e/other", 'segment "."'),
        ("s3://abc//etc/passwd", "empty segment"),
        ("s3://abc/a//b", "empty segment"),
        ("s3://abc/a//", "empty segment"),
        ("s3://abc/a\0b", "control character"),
        ("s3://abc/a%00b", "control character"),
        ("s3://abc/a\x85b", "control character"),
        ("s3://abc/a\\..\\b", "backslash"),
        ("s3://abc/a%5cb", "backslash"),
        ("s3://abc/" + "k" * 1025, "longer than 1024 bytes"),
        ("s3://abc/" + "ü" * 513, "longer than 1024 bytes"),
        ("s3://abc/\ud800", "not valid Unicode"),
    ],
)
def test_a_hostile_location_is_refused_with_a_sentence(uri: str, message: str, publisher: AccountFiles) -> None:
    with pytest.raises(ValueError, match=message) as failure:
        parse_s3_uri(uri)
    assert refusal(publisher.list, uri) == ("INVALID_LOCATION", str(failure.value))


@given(st.text(st.characters(codec="utf-8")).map("s3://publisher-data/{}".format))
def test_no_key_leads_out_of_its_bucket(uri: str) -> None:
    try:
        _, key = parse_s3_uri(uri)
    except ValueError:
        return
    assert os.path.normpath(f"/root/{key}") == f"/root/{key}".rstrip("/")


def test_a_file_is_written_listed_and_read(publisher: AccountFiles, bucket: Path) -> None:
    publisher.write("s3://publisher-data/out/a b ü.txt", iter([b"one ", b"", b"two"]))
    assert (bucket / "out" / "a b ü.txt").read_bytes() == b"one two"
    (found,) = publisher.list("s3://publisher-data/out")
    assert found == FileInfo("s3://publisher-data/out/a b ü.txt", 7)
    with publisher.open(found.uri) as file:
        file.seek(4)
        assert file.read() == b"two"


def test_the_first_write_makes_the_bucket_of_an_account_that_owns_it(files: Files) -> None:
    files.as_account(ADVERTISER).write("s3://advertiser-data/k", [b"x"])
    assert files.as_account(ADVERTISER).list("s3://advertiser-data")[0].size == 1


def test_another_accounts_bucket_is_denied_whether_its_files_exist_or_not(
    files: Files, publisher: AccountFiles
) -> None:
    publisher.write("s3://publisher-data/k", [b"x"])
    stranger = files.as_account(ADVERTISER)
    code, message = refusal(stranger.open, "s3://publisher-data/k")
    assert code == "RESOURCE_ACCESS_DENIED"
    assert refusal(stranger.open, "s3://publisher-data/absent") == (code, message)
    assert refusal(stranger.list, "s3://publisher-data/") == (code, message)
    assert refusal(stranger.write, "s3://publisher-data/k", [b"y"]) == (code, message)
    assert refusal(stranger.open, "s3://nobody-has-it/k")[1] == message.replace("publisher-data", "nobody-has-it")
    with publisher.open("s3://publisher-data/k") as file:
        assert file.read() == b"x"


def test_the_owner_is_asked_at_every_access(settings: Settings, bucket: Path) -> None:
    owners = {"publisher-data": PUBLISHER}
    account = Files.from_settings(settings, owners.get).as_account(PUBLISHER)
    account.write("s3://publisher-data/k", [b"x"])
    owners["publisher-data"] = ADVERTISER
    assert refusal(account.open, "s3://publisher-data/k")[0] == "RESOURCE_ACCESS_DENIED"


def test_a_bucket_made_through_the_s3_endpoint_is_adopted_once(settings: Settings) -> None:
    owners: dict[str, str] = {}
    files = Files.from_settings(settings, owners.get, owners.setdefault)
    for account in (PUBLISHER, ADVERTISER):
        (settings.data_dir / "s3" / account / "fresh").mkdir(parents=True)
    files.as_account(PUBLISHER).write("s3://fresh/k", [b"x"])
    assert owners == {"fresh": PUBLISHER}
    assert refusal(files.as_account(ADVERTISER).list, "s3://fresh")[0] == "RESOURCE_ACCESS_DENIED"
    assert refusal(files.as_account(ADVERTISER).list, "s3://never-made")[0] == "RESOURCE_ACCESS_DENIED"


@pytest.mark.parametrize("account", ["", "..", "1111222233334", "11112222333x", "111122223333\n"])
def test_an_account_is_twelve_digits(files: Files, account: str) -> None:
    with pytest.raises(ValueError, match="12 digits"):
        files.as_account(account)


def test_a_listing_leaves_out_hidden_names_below_the_prefix_only(publisher: AccountFiles, bucket: Path) -> None:
    for name in ("t/b.csv", "t/a.csv", "t/_SUCCESS", "t/.crc", "t/_tmp/x", "t/p=1/c.csv", "_staged/d.csv"):
        (bucket / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket / name).write_bytes(b"x")
    names = [file.uri.removeprefix("s3://publisher-data/") for file in publisher.list("s3://publisher-data/t/")]
    assert names == ["t/a.csv", "t/b.csv", "t/p=1/c.csv"]
    assert [file.uri[-5:] for file in publisher.list("s3://publisher-data/_staged")] == ["d.csv"]
    assert publisher.list("s3://publisher-data/t/_SUCCESS")[0].size == 1


def test_a_name_that_is_not_utf8_is_refused_and_not_repeated(publisher: AccountFiles, bucket: Path) -> None:
    (bucket / "in").mkdir()
    (bucket / "in" / os.fsdecode(b"\xff.csv")).touch()
    code, message = refusal(publisher.list, f"s3://{bucket.name}/in")
    assert code == "INVALID_LOCATION"
    message.encode()


def test_a_prefix_is_a_directory_not_the_beginning_of_names(publisher: AccountFiles) -> None:
    publisher.write("s3://publisher-data/table-old/x", [b"x"])
    assert refusal(publisher.list, "s3://publisher-data/table")[0] == "INPUT_NOT_FOUND"


@pytest.mark.parametrize("key", ["absent", "absent/file", "file/below", "directory/", "n" * 300])
def test_what_does_not_exist_is_said_not_to_be_there(publisher: AccountFiles, bucket: Path, key: str) -> None:
    (bucket / "file").write_bytes(b"x")
    (bucket / "directory").mkdir()
    code, message = refusal(publisher.list, f"s3://publisher-data/{key}")
    assert (code, key in message) == ("INPUT_NOT_FOUND", True)


def test_opening_a_directory_or_a_pipe_finds_no_file(publisher: AccountFiles, bucket: Path) -> None:
    (bucket / "directory").mkdir()
    os.mkfifo(bucket / "pipe")
    before = open_files()
    for key in ("directory", "pipe", "absent"):
        assert refusal(publisher.open, f"s3://publisher-data/{key}")[0] == "INPUT_NOT_FOUND"
    assert refusal(publisher.open, "s3://publisher-data/directory/")[0] == "INVALID_LOCATION"
    assert refusal(publisher.list, "s3://publisher-data/pipe")[0] == "INPUT_NOT_FOUND"
    assert open_files() == before


def test_symbolic_links_are_neither_followed_nor_listed_nor_written_through(
    publisher: AccountFiles, bucket: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (bucket / "file").symlink_to(outside / "secret")
    (bucket / "directory").symlink_to(outside)
    (bucket / "plain").write_bytes(b"x")
    assert [file.uri for file in publisher.list("s3://publisher-data/")] == ["s3://publisher-data/plain"]
    for key in ("file", "directory/secret"):
        assert refusal(publisher.open, f"s3://publisher-data/{key}")[0] == "INPUT_NOT_FOUND"
    assert refusal(publisher.list, "s3://publisher-data/directory")[0] == "INPUT_NOT_FOUND"
    assert refusal(publisher.write, "s3://publisher-data/directory/new", [b"x"])[0] == "INVALID_LOCATION"
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
    publisher.write("s3://publisher-data/file", [b"replaced"])
    assert (outside / "secret").read_bytes() == b"secret"
    assert (bucket / "file").read_bytes() == b"replaced"


def test_a_bucket_that_is_a_link_is_not_followed(files: Files, tmp_path: Path, bucket: Path) -> None:
    (bucket / "k").write_bytes(b"x")
    (tmp_path / "s3" / ADVERTISER).mkdir()
    (tmp_path / "s3" / ADVERTISER / "advertiser-data").symlink_to(bucket)
    assert refusal(files.as_account(ADVERTISER).open, "s3://advertiser-data/k")[0] == "INPUT_NOT_FOUND"


def failing(error: Exception) -> Iterator[bytes]:
    yield b"half" * 1000
    raise error


@pytest.mark.parametrize("error", [RuntimeError("source"), OSError(errno.ENOSPC, "source")])
def test_a_write_whose_source_fails_changes_nothing(
    publisher: AccountFiles, bucket: Path, tmp_path: Path, error: Exception
) -> None:
    publisher.write("s3://publisher-data/k", [b"before"])
    with pytest.raises(type(error), match="source") as failure:
        publisher.write("s3://publisher-data/k", failing(error))
    assert failure.value is error
    with pytest.raises(type(error)):
        publisher.write("s3://publisher-data/new/k", failing(error))
    assert [str(p.relative_to(bucket)) for p in bucket.rglob("*")] == ["k"]
    assert (bucket / "k").read_bytes() == b"before"
    assert list((tmp_path / "s3" / ".incoming").iterdir()) == []


def test_a_full_storage_is_said_to_be_full_and_keeps_nothing(
    publisher: AccountFiles, bucket: Path, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        code, message = refusal(publisher.write, "s3://publisher-data/out/k", [bytes(300_000)] * 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == "STORAGE_FULL"
    assert message == "There is no room to write s3://publisher-data/out/k."
    assert list(bucket.rglob("*")) == []
    assert list((tmp_path / "s3" / ".incoming").iterdir()) == []


def test_what_a_killed_writer_left_is_removed_by_the_next_write(publisher: AccountFiles, tmp_path: Path) -> None:
    writer = os.fork()
    if writer == 0:
        publisher.write("s3://publisher-data/k", iter(lambda: time.sleep(0.001) or bytes(100_000), b""))
    incoming = tmp_path / "s3" / ".incoming"
    while not any(leftover.stat().st_size for leftover in (incoming.iterdir() if incoming.exists() else ())):
        time.sleep(0.005)
    publisher.write("s3://publisher-data/other", [b"x"])
    assert len(list(incoming.iterdir())) == 1, "a living writer's file was removed"
    os.kill(writer, 9)
    os.waitpid(writer, 0)
    publisher.write("s3://publisher-data/other", [b"x"])
    assert list(incoming.iterdir()) == []
    assert refusal(publisher.open, "s3://publisher-data/k")[0] == "INPUT_NOT_FOUND"


@pytest.mark.parametrize("key", ["directory", "file/below", "n" * 256])
def test_a_key_that_cannot_be_a_file_is_refused(publisher: AccountFiles, bucket: Path, key: str) -> None:
    (bucket / "directory").mkdir()
    (bucket / "file").write_bytes(b"x")
    assert refusal(publisher.write, f"s3://publisher-data/{key}", [b"x"])[0] == "INVALID_LOCATION"
    assert (bucket / "file").read_bytes() == b"x"


def test_a_directory_of_many_files_is_listed_quickly(publisher: AccountFiles, bucket: Path) -> None:
    (bucket / "many").mkdir()
    for number in range(20_000):
        os.close(os.open(bucket / "many" / f"part-{number:06}", os.O_CREAT))
    began = time.monotonic()
    found = publisher.list("s3://publisher-data/many")
    assert time.monotonic() - began < 5
    assert len(found) == 20_000
    assert found[-1].uri.endswith("part-019999")
