"""Secrets, key rings and encrypted files, on real files."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from whiteroom.config import Settings
from whiteroom.data.errors import DataError
from whiteroom.data.keys import KeyRing, SecretBox, open_encrypted

ARN = "arn:aws:kms:us-east-1:111122223333:key/one"
CHUNK = 256 * 1024
HEADER = 28
KEY = bytes(range(32))


@given(secret=st.binary(max_size=200), context=st.binary(max_size=50))
def test_what_is_sealed_opens_under_the_same_key_and_context(secret: bytes, context: bytes) -> None:
    box = SecretBox(KEY)
    assert box.open(box.seal(secret, context=context), context=context) == secret


@given(secret=st.binary(max_size=50), position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_of_a_sealed_secret_is_noticed(secret: bytes, position: int, bit: int) -> None:
    box = SecretBox(KEY)
    sealed = bytearray(box.seal(secret, context=b"here"))
    sealed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(DataError, match="cannot be decrypted"):
        box.open(bytes(sealed), context=b"here")


@pytest.mark.parametrize("sealed", [b"", b"short"])
def test_bytes_too_short_to_be_sealed_are_refused(sealed: bytes) -> None:
    with pytest.raises(DataError, match="cannot be decrypted"):
        SecretBox(KEY).open(sealed, context=b"")


def test_a_secret_sealed_for_one_place_does_not_open_in_another() -> None:
    box = SecretBox(KEY)
    with pytest.raises(DataError) as failure:
        box.open(box.seal(b"secret", context=b"key of A"), context=b"key of B")
    assert failure.value.status_code == "KEY_UNAVAILABLE"


def test_the_server_key_is_made_once_for_the_owner_only(settings: Settings) -> None:
    sealed = SecretBox.from_settings(settings).seal(b"secret", context=b"")
    path = settings.data_dir / "keys" / "server.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert SecretBox.from_settings(settings).open(sealed, context=b"") == b"secret"
    assert [entry.name for entry in path.parent.iterdir()] == ["server.key"]


def test_processes_that_start_together_agree_on_one_server_key(settings: Settings) -> None:
    program = (
        "import sys; from pathlib import Path; from whiteroom.config import Settings\n"
        "from whiteroom.data.keys import SecretBox\n"
        "sys.stdin.readline()\n"
        "box = SecretBox.from_settings(Settings(data_dir=Path(sys.argv[1])))\n"
        "print(box.seal(b'secret', context=b'').hex())"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([sys.executable, "-c", program, str(settings.data_dir)], **pipes) for _ in range(4)]
    answers = []
    for racer in racers:  # each waits for its line, so that they begin at once
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        answers.append(racer.communicate(timeout=30)[0].strip())
    on_disk = SecretBox.from_settings(settings)
    assert [on_disk.open(bytes.fromhex(sealed), context=b"") for sealed in answers] == [b"secret"] * 4


def test_the_key_file_and_the_setting_hold_the_same_text(settings: Settings) -> None:
    from_file = SecretBox.from_settings(settings)
    text = (settings.data_dir / "keys" / "server.key").read_text()
    moved = SecretBox.from_settings(replace(settings, server_key=text))
    assert moved.open(from_file.seal(b"secret", context=b""), context=b"") == b"secret"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 bytes"),
        ("not base64!", "not base64"),
        (base64.b64encode(b"short").decode(), "5 bytes; it must be base64 of 32 bytes"),
    ],
)
def test_a_damaged_server_key_file_is_named(settings: Settings, text: str, message: str) -> None:
    path = settings.data_dir / "keys" / "server.key"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(DataError, match=message) as failure:
        SecretBox.from_settings(settings)
    assert str(path) in failure.value.message


def test_a_data_key_opens_by_the_key_that_wrapped_it_only(settings: Settings) -> None:
    ring = KeyRing.from_settings(settings)
    plain, wrapped = ring.new_data_key(ARN)
    assert plain not in wrapped
    assert KeyRing.from_settings(settings).unwrap(ARN, wrapped) == plain
    assert ring.new_data_key(ARN)[0] != plain
    ring.new_data_key(ARN + "-other")
    with pytest.raises(DataError, match="cannot be decrypted"):
        ring.unwrap(ARN + "-other", wrapped)


def test_removing_a_wrapping_key_makes_its_data_unreadable(settings: Settings) -> None:
    ring = KeyRing.from_settings(settings)
    _, wrapped = ring.new_data_key(ARN)
    assert ARN in ring.path(ARN).read_text()
    ring.path(ARN).unlink()
    with pytest.raises(DataError, match="not in the key ring") as failure:
        ring.unwrap(ARN, wrapped)
    assert failure.value.status_code == "KEY_UNAVAILABLE"
    ring.new_data_key(ARN)  # a new key under the old name does not bring the data back
    with pytest.raises(DataError, match="cannot be decrypted"):
        ring.unwrap(ARN, wrapped)


def test_a_wrapping_key_file_copied_under_another_name_is_refused(settings: Settings) -> None:
    ring = KeyRing.from_settings(settings)
    _, wrapped = ring.new_data_key(ARN)
    ring.path(ARN + "-stolen").write_bytes(ring.path(ARN).read_bytes())
    with pytest.raises(DataError, match="cannot be decrypted"):
        ring.unwrap(ARN + "-stolen", wrapped)


def encrypted(path: Path, content: bytes, key: bytes = KEY) -> Path:
    with open_encrypted(path, "wb", key) as file:
        file.write(content)
    return path


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17])
def test_a_file_of_any_size_comes_back(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = encrypted(tmp_path / "file", content)
    with open_encrypted(path, "rb", KEY) as file:
        assert file.read() == content
        assert file.seek(0, io.SEEK_END) == size
    assert content[:32] not in path.read_bytes() or size < 32


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.integers(0, CHUNK + 9), max_size=4),
    reads=st.lists(st.tuples(st.integers(0, 3 * CHUNK), st.integers(0, CHUNK + 9)), max_size=5),
)
def test_any_pieces_written_read_at_any_place(tmp_path: Path, pieces: list[int], reads: list[tuple[int, int]]) -> None:
    content = b"".join(os.urandom(size) for size in pieces)
    with open_encrypted(tmp_path / "file", "wb", KEY) as file:
        position = 0
        for size in pieces:
            assert file.write(content[position : position + size]) == size
            position += size
    with open_encrypted(tmp_path / "file", "rb", KEY) as file:
        for start, size in reads:
            file.seek(start)
            assert file.read(size) == content[start : start + size]


def read_all(path: Path, key: bytes = KEY) -> bytes:
    with open_encrypted(path, "rb", key) as file:
        return file.read()


def damaged(content: bytes, kind: str) -> bytes:
    chunk = CHUNK + 16
    first, second = content[HEADER : HEADER + chunk], content[HEADER + chunk : HEADER + 2 * chunk]
    return {
        "empty": b"",
        "only a header": content[:HEADER],
        "cut inside a chunk": content[:-1],
        "cut between chunks": content[: HEADER + 2 * chunk],
        "a byte appended": content + b"\0",
        "a chunk appended": content + first,
        "chunks swapped": content[:HEADER] + second + first + content[HEADER + 2 * chunk :],
        "a chunk dropped": content[:HEADER] + content[HEADER + chunk :],
        "header changed": content[:20] + b"\xff" + content[21:],
        "chunk size changed": content[:8] + b"\0\0\0\1" + content[12:],
        "first chunk changed": content[:40] + bytes([content[40] ^ 1]) + content[41:],
        "another format": b"PAR1" + content[4:],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "empty", "only a header", "cut inside a chunk", "cut between chunks", "a byte appended", "a chunk appended",
        "chunks swapped", "a chunk dropped", "header changed", "chunk size changed", "first chunk changed",
        "another format",
    ],
)  # fmt: skip
def test_a_damaged_encrypted_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = encrypted(tmp_path / "file", os.urandom(2 * CHUNK + 100))
    path.write_bytes(damaged(path.read_bytes(), kind))
    with pytest.raises(DataError, match="cannot be read") as failure:
        read_all(path)
    assert failure.value.status_code == "KEY_UNAVAILABLE"


def test_a_truncated_file_is_refused_before_its_beginning_is_read(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "file", os.urandom(4 * CHUNK))
    os.truncate(path, HEADER + 2 * (CHUNK + 16))
    with pytest.raises(DataError, match="truncated or changed"):
        open_encrypted(path, "rb", KEY)


def test_another_key_does_not_read_a_file(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "file", b"content")
    with pytest.raises(DataError, match="its key is another one"):
        read_all(path, bytes(32))


def test_equal_files_are_encrypted_differently(tmp_path: Path) -> None:
    one, two = encrypted(tmp_path / "1", b"same" * 99), encrypted(tmp_path / "2", b"same" * 99)
    assert one.read_bytes()[HEADER:] != two.read_bytes()[HEADER:]


def test_a_file_whose_writing_failed_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(RuntimeError), open_encrypted(path, "wb", KEY) as file:
        file.write(b"x" * (CHUNK + 5))
        raise RuntimeError
    with pytest.raises(DataError, match="truncated"):
        read_all(path)


def test_a_file_that_was_never_closed_cannot_be_read(tmp_path: Path) -> None:
    file = open_encrypted(tmp_path / "file", "wb", KEY)
    file.write(b"x" * (CHUNK + 5))
    del file
    with pytest.raises(DataError, match="truncated"):
        read_all(tmp_path / "file")


def test_arrays_and_parquet_travel_through_encrypted_files(tmp_path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = np.arange(100_000, dtype=np.float32)
    with open_encrypted(tmp_path / "numbers", "wb", KEY) as file:
        np.save(file, numbers)
    with open_encrypted(tmp_path / "numbers", "rb", KEY) as file:
        assert np.array_equal(np.load(file), numbers)
    with open_encrypted(tmp_path / "table", "wb", KEY) as file:
        pq.write_table(pa.table({"n": numbers}), file)
    with open_encrypted(tmp_path / "table", "rb", KEY) as file:
        assert np.array_equal(pq.read_table(file)["n"].to_numpy(), numbers)


@pytest.mark.parametrize("mode", ["r", "ab", "r+b"])
def test_other_modes_are_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ValueError, match="mode must be"):
        open_encrypted(tmp_path / "file", mode, KEY)
