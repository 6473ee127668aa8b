"""Files that are broken, or made to break the reader: each ends in a sentence that names it."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.data.test_tables import CSV, JSON, ROWS, catalog_table, failure, put, put_parquet, rows
from whiteroom.data.errors import DataError
from whiteroom.data.files import AccountFiles
from whiteroom.data.tables import infer_columns


def parquet(table: pa.Table | None = None, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS) if table is None else table, sink, **options)
    return sink.getvalue()


PARQUET = parquet()
BAD = {
    "parquet": {
        "empty": (b"", "empty (0 bytes)"),
        "cut in the middle": (PARQUET[: len(PARQUET) // 2], "not a whole Parquet file"),
        "cut before the last byte": (PARQUET[:-1], "not a whole Parquet file"),
        "only the magic": (b"PAR1", "not a whole Parquet file"),
        "half written": (b"PAR1" + bytes(5000), "not a whole Parquet file"),
        "a footer that lies": (PARQUET[:-8] + b"\xff\xff\xff\x7fPAR1", "it is damaged"),
        "a footer of rubbish": (PARQUET[:-40] + b"\xff" * 32 + PARQUET[-8:], "it is damaged"),
        "another format": (CSV.encode(), "not a whole Parquet file"),
    },
    "csv": {
        "empty": (b"", "empty (0 bytes)"),
        "a field too many": (CSV + "a,1,2,3\n", "a line has 4 fields and the header 3"),
        "a field too few": (CSV + "a,1\n", "a line has 2 fields and the header 3"),
        "a late field too many": (CSV + CSV[25:] * 5000 + "a,1,2,3\n", "a line has 4 fields and the header 3"),
        "latin-1": (CSV.encode() + b"caf\xe9,1,2\n", "not UTF-8"),
        "a letter in a number": (CSV + "a,x1,2\n", "The column item_id is declared as bigint"),
        "a number too large": (CSV + "a,9223372036854775808,2\n", "The column item_id is declared as bigint"),
        "no end of line": ("user_id,item_id,timestamp\n" + "x" * 9_000_000, "a line is longer than 4 MiB"),
        "an endless header": ("x" * 9_000_000, "its first line is longer than 4 MiB"),
        "a header only of another table": ("a,b\n1,2\n", "has no column user_id"),
        "a value that is a page": (CSV + "y" * 70_000 + ",1,2\n", "holds a value of 70000 bytes"),
        "parquet": (PARQUET, "cannot be read"),
    },
    "json": {
        "empty": (b"", "empty (0 bytes)"),
        "blank": (b"\n\n \n", "it is empty"),
        "a broken last line": (JSON + '{"user_id": "u', "a line is not valid JSON"),
        "an array": ("[1, 2]\n", "first line of s3://publisher-data/t/file is not a JSON object"),
        "one array of objects": (json.dumps(ROWS), "is not a JSON object"),
        "a late array": (JSON + "[1]\n", "a line is not a JSON object"),
        "a text for a number": (JSON + '{"item_id": "7"}\n', "the column item_id is declared as a number and holds"),
        "a number for a text": (JSON + '{"user_id": 7}\n', "the column user_id is declared as a string and holds"),
        "a fraction for a bigint": (JSON + '{"item_id": 7.5}\n', "declared as int64"),
        "a doubled key": (JSON + '{"item_id": 7, "item_id": 8}\n', "a line is not valid JSON"),
        "latin-1": (JSON.encode() + b'{"user_id": "caf\xe9"}\n', "not UTF-8"),
        "a lone surrogate": (JSON + '{"user_id": "\\ud800"}\n', "a line is not valid JSON"),
        "no end of line": (JSON + '{"user_id": "' + "x" * 9_000_000, "a line is longer than 4 MiB"),
        "deep nesting": ('{"q":' + "[" * 200_000, "is not a JSON object"),
        "csv": (CSV, "is not a JSON object"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("format_", "kind"), [(f, kind) for f, kinds in BAD.items() for kind in kinds])
def test_a_bad_file_is_named_with_what_is_wrong(publisher: AccountFiles, bucket: Path, format_: str, kind: str) -> None:
    content, message = BAD[format_][kind]
    put(bucket, "t/file", content)
    error = failure(publisher, catalog_table(format_), ["user_id", "item_id", "timestamp"])
    assert error.status_code in ("INVALID_DATA_FILE", "SCHEMA_MISMATCH")
    assert message in error.message
    assert "s3://publisher-data/t/file" in error.message
    assert str(bucket) not in error.message


@pytest.mark.parametrize(("format_", "content"), [("csv", CSV), ("json", JSON)])
@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: raw[:-4], lambda raw: b"not gzip" * 9]
)
def test_a_damaged_gzip_file_is_refused(
    publisher: AccountFiles, bucket: Path, format_: str, content: str, damage: Any
) -> None:
    put(bucket, "t/a.gz", damage(gzip.compress(content.encode())))
    error = failure(publisher, catalog_table(format_), ["user_id"])
    assert error.status_code == "INVALID_DATA_FILE"


def test_a_good_file_before_a_bad_one_does_not_hide_it(publisher: AccountFiles, bucket: Path) -> None:
    put_parquet(bucket, "t/a.parquet", pa.Table.from_pylist(ROWS))
    put(bucket, "t/b.parquet", PARQUET[:-9])
    assert "t/b.parquet" in failure(publisher, catalog_table("parquet"), ["user_id"]).message


def test_a_table_without_files_is_not_found(publisher: AccountFiles) -> None:
    error = failure(publisher, catalog_table("parquet"), ["user_id"])
    assert (error.status_code, error.message) == ("INPUT_NOT_FOUND", "There is no file at s3://publisher-data/t/.")


def test_an_unknown_format_is_refused(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "t/a.orc", b"ORC")
    error = failure(publisher, catalog_table("orc"), ["user_id"])
    assert error.status_code == "UNSUPPORTED_DATA_FORMAT"
    with pytest.raises(DataError, match="format 'orc'"):
        infer_columns(publisher, "s3://publisher-data/t", "orc")


@pytest.mark.parametrize("format_", ["parquet", "csv", "json"])
def test_columns_of_an_empty_file_cannot_be_inferred(publisher: AccountFiles, bucket: Path, format_: str) -> None:
    put(bucket, "t/a", b"")
    with pytest.raises(DataError, match="empty"):
        infer_columns(publisher, "s3://publisher-data/t", format_)


def test_binary_that_is_no_text_is_refused_as_a_string(publisher: AccountFiles, bucket: Path) -> None:
    put_parquet(bucket, "t/a.parquet", {"user_id": pa.array([b"\xff\xfe"])})
    assert "not UTF-8" in failure(publisher, catalog_table("parquet"), ["user_id"]).message


def test_no_message_repeats_a_value(publisher: AccountFiles, bucket: Path) -> None:
    for number, bad in enumerate(("secret-7,x-secret,1", "secret-7,1", "secret-7,1,2,secret")):
        put(bucket, f"c{number}/a.csv", CSV + bad + "\n")
        error = failure(publisher, catalog_table("csv", location=f"c{number}"), ["user_id", "item_id"])
        assert "secret" not in error.message
    for number, bad in enumerate(('{"user_id": secret}', '{"item_id": "secret"}', '{"item_id": 7.777}')):
        put(bucket, f"j{number}/a.json", JSON + bad + "\n")
        error = failure(publisher, catalog_table("json", location=f"j{number}"), ["user_id", "item_id"])
        assert "secret" not in error.message
        assert "7.777" not in error.message


def test_a_long_value_repeated_a_million_times_costs_no_memory(publisher: AccountFiles, bucket: Path) -> None:
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x" * 900_000]))
    put_parquet(bucket, "t/a.parquet", {"user_id": bomb}, compression="zstd")
    assert (bucket / "t" / "a.parquet").stat().st_size < 100_000
    before = pa.default_memory_pool().max_memory()
    assert "holds a value of 900000 bytes" in failure(publisher, catalog_table("parquet"), ["user_id"]).message
    assert pa.default_memory_pool().max_memory() - before < 200_000_000


def test_a_text_bomb_is_read_in_bounded_memory(publisher: AccountFiles, bucket: Path) -> None:
    line = b"x" * 60 + b",1,2\n"
    with gzip.open(bucket / "bomb.csv.gz", "wb", compresslevel=9) as file:
        file.write(b"user_id,item_id,timestamp\n")
        for _ in range(20):
            file.write(line * 50_000)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.data.conftest import OWNERS, PUBLISHER; from tests.data.test_tables import catalog_table\n"
        "from whiteroom.config import Settings; from whiteroom.data.files import Files\n"
        "from whiteroom.data.tables import batches\n"
        "files = Files.from_settings(Settings(data_dir=Path(sys.argv[1])), OWNERS.get).as_account(PUBLISHER)\n"
        "table = catalog_table('csv', location='bomb.csv.gz')\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(batch.num_rows for batch in batches(files, table, ['user_id'])))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(bucket.parents[2])], capture_output=True, text=True, check=True
    )
    count, kilobytes = map(int, done.stdout.split())
    assert count == 1_000_000
    assert kilobytes < 400_000


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.sampled_from(["snappy", "zstd", "none"]),
    damage=st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 40),
)
def test_a_parquet_file_with_any_bytes_changed_is_read_or_refused(
    publisher: AccountFiles, bucket: Path, which: str, damage: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(parquet(compression=which))
    for position, value in damage:
        content[-1 - position % len(content)] = value
    put(bucket, "t/a.parquet", bytes(content[cut:]))
    try:
        found = rows(publisher, catalog_table("parquet"), ["user_id", "item_id"])
    except DataError as error:
        assert "s3://publisher-data/t/a.parquet" in error.message
    else:
        assert all(set(row) == {"user_id", "item_id"} for row in found)


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(format_=st.sampled_from(["csv", "json"]), content=st.binary(min_size=1, max_size=300))
def test_any_bytes_as_text_are_read_or_refused(
    publisher: AccountFiles, bucket: Path, format_: str, content: bytes
) -> None:
    prefix = b'{"user_id": "u"}\n' if format_ == "json" else b"user_id\nu\n"
    put(bucket, "t/a", prefix + content)
    try:
        found = rows(publisher, catalog_table(format_), ["user_id"])
    except DataError as error:
        assert "s3://publisher-data/t/a" in error.message
    else:
        assert found[0] == {"user_id": "u"}
