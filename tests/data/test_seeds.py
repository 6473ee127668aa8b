"""Reading seeds, whole and broken, from real files."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.data.conftest import ADVERTISER, OWNERS, PUBLISHER
from tests.data.test_tables import put
from whiteroom.config import Settings
from whiteroom.data.errors import DataError
from whiteroom.data.files import AccountFiles, Files
from whiteroom.data.seeds import read_seed

URI = "s3://publisher-data/seed"
IDS = [f"user-{n}" for n in range(30)]
LINES = "".join(json.dumps({"user_id": user}) + "\n" for user in IDS)


def read(files: AccountFiles, uri: str = URI, *, least: int = 1, most: int = 1000, size: int = 10**6) -> list[str]:
    return read_seed(files, uri, min_ids=least, max_ids=most, max_bytes=size)


def failure(files: AccountFiles, uri: str = URI, **limits: int) -> DataError:
    with pytest.raises(DataError) as raised:
        read(files, uri, **limits)
    return raised.value


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES.removesuffix("\n"),
        LINES.replace("\n", "\r\n"),
        "\n \n\t\n" + LINES.replace("\n", "\n\n") + "\n\n",
        LINES + LINES,
        "\ufeff" + LINES,
        LINES.replace('{"user_id"', '{"other": [1, {"user_id": 2}], "user_id"'),
    ],
    ids=["plain", "no last newline", "crlf", "blank lines", "doubled", "byte order mark", "other keys"],
)
def test_a_seed_gives_its_distinct_ids_in_order(publisher: AccountFiles, bucket: Path, content: str) -> None:
    put(bucket, "seed", content)
    assert read(publisher) == IDS


def test_integers_and_strings_are_the_same_ids(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "seed", '{"user_id": 7}\n{"user_id": "7"}\n{"user_id": -12345678901234567890}\n{"user_id": " ü 7"}')
    assert read(publisher) == ["7", "-12345678901234567890", " ü 7"]


def test_a_seed_may_be_packed_and_in_several_files(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "seed/part-1.jsonl", '{"user_id": "b"}\n{"user_id": "c"}')
    put(bucket, "seed/part-0.jsonl.gz", gzip.compress(b'{"user_id": "a"}\n{"user_id": "b"}'))
    put(bucket, "seed/_SUCCESS", "")
    assert read(publisher) == ["a", "b", "c"]


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.integers(), max_size=20), st.booleans()
)
@hypothesis_settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_ids_come_back(publisher: AccountFiles, bucket: Path, ids: list[str | int], ascii_only: bool) -> None:
    content = "\n".join(json.dumps({"user_id": user}, ensure_ascii=ascii_only) for user in ids)
    put(bucket, "seed", content)
    assert read(publisher, least=0) == list(dict.fromkeys(map(str, ids)))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"user_id": "user-00', "is not valid JSON"),
        ('{"user_id": "secret"} x', "is not valid JSON"),
        ("user-00", "is not valid JSON"),
        ('"secret"', 'is not a JSON object with the key "user_id"'),
        ('["secret"]', 'is not a JSON object with the key "user_id"'),
        ('{"id": "secret"}', 'is not a JSON object with the key "user_id"'),
        ('{"USER_ID": "secret"}', 'is not a JSON object with the key "user_id"'),
        ('{"user_id": null}', "neither a string nor an integer"),
        ('{"user_id": true}', "neither a string nor an integer"),
        ('{"user_id": 1.0}', "neither a string nor an integer"),
        ('{"user_id": NaN}', "neither a string nor an integer"),
        ('{"user_id": ["secret"]}', "neither a string nor an integer"),
        ('{"user_id": {"secret": 1}}', "neither a string nor an integer"),
        ('{"user_id": ""}', "or is empty"),
        ('{"user_id": "\\ud800"}', "no valid Unicode"),
        ('{"user_id": ' + "9" * 5000 + "}", "is not valid JSON"),
        ('{"user_id": "' + "x" * 70_000 + '"}', "is longer than 65536 bytes"),
        ('{"q": ' + "[" * 60_000, "is not valid JSON"),
    ],
    ids=range(18),
)
def test_a_bad_line_is_named_by_its_number_and_never_shown(
    publisher: AccountFiles, bucket: Path, line: str, why: str
) -> None:
    for content, number in ((LINES + "\n" + line, 32), (line + "\n" + LINES, 1)):
        put(bucket, "seed", content)
        error = failure(publisher)
        assert error.status_code == "INVALID_SEED_DATA"
        assert error.message.startswith(f"Line {number} of {URI} ")
        assert why in error.message
        assert "secret" not in error.message


@pytest.mark.parametrize("content", [LINES.encode() + b'{"user_id": "caf\xe9"}', LINES.encode("utf-16")])
def test_text_that_is_not_utf_8_is_refused(publisher: AccountFiles, bucket: Path, content: bytes) -> None:
    put(bucket, "seed", content)
    assert failure(publisher).message.endswith("is not UTF-8.")


@pytest.mark.parametrize("content", [b"\x1f\x8bnot gzip", gzip.compress(LINES.encode())[:-9], LINES.encode()])
def test_a_damaged_gzip_seed_is_refused(publisher: AccountFiles, bucket: Path, content: bytes) -> None:
    put(bucket, "seed.gz", content)
    error = failure(publisher, URI + ".gz")
    assert (error.status_code, "not a whole gzip file" in error.message) == ("INVALID_SEED_DATA", True)


def test_too_few_and_too_many_ids_are_counted_once_each(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "seed", LINES * 3)
    assert len(read(publisher, least=30, most=30)) == 30
    error = failure(publisher, least=31)
    assert error.status_code == "SEED_SIZE_BELOW_MINIMUM"
    assert error.message == "The seed holds 30 distinct user ids; at least 31 are needed."
    error = failure(publisher, most=29)
    assert error.status_code == "SEED_TOO_LARGE"
    assert error.message == "The seed holds more than the 29 distinct user ids that are allowed."


def test_an_empty_seed_is_too_small(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "seed", "")
    assert failure(publisher).status_code == "SEED_SIZE_BELOW_MINIMUM"


def test_a_seed_of_2_gb_is_refused_by_its_size(publisher: AccountFiles, bucket: Path) -> None:
    with (bucket / "seed").open("wb") as file:
        file.truncate(2_000_000_000)
    began = time.monotonic()
    assert failure(publisher, size=10**9).status_code == "SEED_TOO_LARGE"
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("block", "code"), [(b'{"user_id": "same"}\n' * 50_000, "SEED_TOO_LARGE"), (bytes(10**6), "INVALID_SEED_DATA")]
)
def test_a_packed_seed_is_refused_in_bounded_memory(settings: Settings, bucket: Path, block: bytes, code: str) -> None:
    with gzip.open(bucket / "seed.gz", "wb", compresslevel=1) as file:
        for _ in range(12):
            file.write(block)
    program = (
        "import resource, sys; from pathlib import Path; from tests.data.test_seeds import *\n"
        "files = Files.from_settings(Settings(data_dir=Path(sys.argv[1])), OWNERS.get).as_account(PUBLISHER)\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(failure(files, URI + '.gz', size=8_000_000).status_code)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(settings.data_dir)], capture_output=True, text=True, check=True
    )
    status_code, kilobytes = done.stdout.split()
    assert status_code == code
    assert int(kilobytes) < 30_000


def test_600_000_ids_are_refused_quickly(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "seed", "".join(f'{{"user_id": "u{n}"}}\n' for n in range(600_000)))
    began = time.monotonic()
    assert failure(publisher, most=500_000, size=10**9).status_code == "SEED_TOO_LARGE"
    assert time.monotonic() - began < 15


def test_a_seed_is_read_from_the_accounts_own_bucket_only(settings: Settings, bucket: Path) -> None:
    put(bucket, "seed", LINES)
    stranger = Files.from_settings(settings, OWNERS.get).as_account(ADVERTISER)
    assert failure(stranger).status_code == "RESOURCE_ACCESS_DENIED"
    assert failure(stranger, "s3://publisher-data/absent").status_code == "RESOURCE_ACCESS_DENIED"


def test_a_seed_that_is_not_there_is_not_found(publisher: AccountFiles) -> None:
    assert failure(publisher).status_code == "INPUT_NOT_FOUND"


def test_a_seed_is_read_from_an_s3_endpoint(endpoint: Settings) -> None:
    remote = Files.from_settings(endpoint, OWNERS.get).as_account(PUBLISHER)
    remote.write("s3://publisher-data/seed/a.jsonl", [LINES.encode()])
    remote.write("s3://publisher-data/seed/b.jsonl.gz", [gzip.compress(b'{"user_id": 1}')])
    assert read(remote) == [*IDS, "1"]
