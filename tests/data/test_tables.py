"""Reading tables of real files: what comes out, in which types, and what is said about a bad file."""

from __future__ import annotations

import bz2
import gzip
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.conftest import OWNERS, PUBLISHER, open_files
from whiteroom.config import Settings
from whiteroom.data.errors import DataError
from whiteroom.data.files import AccountFiles, Files
from whiteroom.data.tables import batches, infer_columns, schema
from whiteroom.store.tables import CatalogTable, Column

COLUMNS = {"user_id": "string", "item_id": "bigint", "timestamp": "bigint"}
ROWS = [{"user_id": f"u{n % 7}", "item_id": n, "timestamp": 1_700_000_000 + n} for n in range(100)]
CSV = "user_id,item_id,timestamp\n" + "".join(f"{r['user_id']},{r['item_id']},{r['timestamp']}\n" for r in ROWS)
JSON = "".join(json.dumps(row) + "\n" for row in ROWS)


def catalog_table(format_: str, columns: dict[str, str] | None = None, location: str = "t/") -> CatalogTable:
    declared = tuple(Column(name, kind) for name, kind in (columns or COLUMNS).items())
    return CatalogTable(PUBLISHER, "db", "t", f"s3://publisher-data/{location}", format_, declared)


def put(bucket: Path, name: str, content: bytes | str) -> None:
    path = bucket / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def put_parquet(bucket: Path, name: str, columns: dict[str, Any] | pa.Table, **options: Any) -> None:
    (bucket / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), bucket / name, **options)


def rows(files: AccountFiles, table: CatalogTable, columns: list[str], **options: Any) -> list[dict[str, Any]]:
    return [row for batch in batches(files, table, columns, **options) for row in batch.to_pylist()]


def failure(files: AccountFiles, table: CatalogTable, columns: list[str], **options: Any) -> DataError:
    before = open_files()
    with pytest.raises(DataError) as raised:
        rows(files, table, columns, **options)
    assert open_files() == before
    return raised.value


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_parquet_of_every_codec_is_read(publisher: AccountFiles, bucket: Path, compression: str) -> None:
    put_parquet(bucket, "t/a.parquet", pa.Table.from_pylist(ROWS), compression=compression)
    assert rows(publisher, catalog_table("parquet"), list(COLUMNS)) == ROWS


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.csv", bytes),
        ("a.csv.gz", gzip.compress),
        ("a.csv.bz2", bz2.compress),
        ("a.csv.zst", lambda raw: pa.compress(raw, "zstd", asbytes=True)),
        ("a.CSV.GZ", gzip.compress),
        ("no-ending", bytes),
    ],
)
def test_csv_is_read_plain_and_packed(publisher: AccountFiles, bucket: Path, name: str, pack: Any) -> None:
    put(bucket, f"t/{name}", pack(CSV.encode()))
    assert rows(publisher, catalog_table("csv"), list(COLUMNS)) == ROWS


@pytest.mark.parametrize(("name", "pack"), [("a.json", bytes), ("a.jsonl.gz", gzip.compress)])
def test_json_lines_are_read_plain_and_packed(publisher: AccountFiles, bucket: Path, name: str, pack: Any) -> None:
    put(bucket, f"t/{name}", pack(JSON.encode()))
    assert rows(publisher, catalog_table("json"), list(COLUMNS)) == ROWS


def test_csv_may_quote_have_a_bom_crlf_and_no_last_newline(publisher: AccountFiles, bucket: Path) -> None:
    text = '\ufeffuser_id,item_id,timestamp\r\n"a, ""b""",1,2\r\n,3,4\r\n"",5,6'
    put(bucket, "t/a.csv", text)
    found = rows(publisher, catalog_table("csv"), ["user_id", "item_id"])
    assert found == [
        {"user_id": 'a, "b"', "item_id": 1},
        {"user_id": None, "item_id": 3},
        {"user_id": "", "item_id": 5},
    ]


def test_only_the_columns_asked_for_come_in_their_order_and_case(publisher: AccountFiles, bucket: Path) -> None:
    put_parquet(bucket, "t/a.parquet", {"Timestamp": [1], "OTHER": ["not read"], "USER_ID": ["u"]})
    found = list(batches(publisher, catalog_table("parquet"), ["user_id", "timestamp"]))
    assert found[0].schema == schema(catalog_table("parquet"), ["user_id", "timestamp"])
    assert found[0].to_pylist() == [{"user_id": "u", "timestamp": 1}]
    put(bucket, "u/a.csv", "TIMESTAMP,other,User_Id\n1,x,u\n")
    assert rows(publisher, catalog_table("csv", location="u"), ["user_id"]) == [{"user_id": "u"}]
    put(bucket, "v/a.json", '{"User_ID": "u", "TimeStamp": 1}\n{"User_ID": "v"}\n')
    found = rows(publisher, catalog_table("json", location="v"), ["user_id", "timestamp", "item_id"])
    assert found[1] == {"user_id": "v", "timestamp": None, "item_id": None}


def test_a_table_is_read_file_by_file_in_bounded_batches(publisher: AccountFiles, bucket: Path) -> None:
    for part in range(3):
        ids = range(part * 100_000, (part + 1) * 100_000)
        put_parquet(bucket, f"t/p{part}.parquet", {"item_id": ids})
        put(bucket, f"c/p{part}.csv", "item_id\n" + "\n".join(map(str, ids)))
    for format_, location in (("parquet", "t"), ("csv", "c")):
        found = list(batches(publisher, catalog_table(format_, location=location), ["item_id"]))
        assert max(batch.num_rows for batch in found) <= 65_536
        assert [n for batch in found for n in batch["item_id"].to_pylist()] == list(range(300_000))


def test_reading_stops_when_the_reader_stops_and_closes_its_file(publisher: AccountFiles, bucket: Path) -> None:
    for format_, content in (("csv", CSV), ("json", JSON)):
        put(bucket, f"{format_}/a.gz", gzip.compress(content.encode()))
        before = open_files()
        stream = batches(publisher, catalog_table(format_, location=format_), ["user_id"])
        assert next(stream).num_rows == 100
        stream.close()
        assert open_files() == before


TIMES = [
    datetime(2024, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC),
    None,
]
SECONDS = [1_704_164_645, -1, None]


@pytest.mark.parametrize(
    "stored",
    [
        pa.array(TIMES, pa.timestamp("ms", "UTC")),
        pa.array(TIMES, pa.timestamp("us", "America/New_York")),
        pa.array(TIMES, pa.timestamp("ns", "UTC")).cast(pa.timestamp("ns")),
    ],
)
def test_timestamps_of_any_unit_and_zone_become_seconds(
    publisher: AccountFiles, bucket: Path, stored: pa.Array
) -> None:
    put_parquet(bucket, "t/a.parquet", {"timestamp": stored})
    table = catalog_table("parquet", {"timestamp": "timestamp"})
    assert [row["timestamp"] for row in rows(publisher, table, ["timestamp"], epoch=["timestamp"])] == SECONDS
    plain = [row["timestamp"] for row in rows(publisher, table, ["timestamp"])]
    assert plain == [None if time is None else time.replace(tzinfo=None) for time in TIMES]


def test_spark_timestamps_become_seconds(publisher: AccountFiles, bucket: Path) -> None:
    stored = pa.array(TIMES[:1], pa.timestamp("ns"))
    put_parquet(bucket, "t/a.parquet", {"timestamp": stored}, use_deprecated_int96_timestamps=True)
    table = catalog_table("parquet", {"timestamp": "timestamp"})
    assert rows(publisher, table, ["timestamp"], epoch=["timestamp"]) == [{"timestamp": SECONDS[0]}]


@pytest.mark.parametrize(
    "text", ["2024-01-02 03:04:05.678", "2024-01-02T03:04:05", "2024-01-02T05:04:05+02:00", "2024-01-02T03:04:05.678Z"]
)
def test_timestamps_of_text_files_become_seconds(publisher: AccountFiles, bucket: Path, text: str) -> None:
    put(bucket, "c/a.csv", f"timestamp\n{text}\n")
    put(bucket, "j/a.json", json.dumps({"timestamp": text}))
    for format_, location in (("csv", "c"), ("json", "j")):
        table = catalog_table(format_, {"timestamp": "timestamp"}, location)
        assert rows(publisher, table, ["timestamp"], epoch=["timestamp"]) == [{"timestamp": SECONDS[0]}]


@pytest.mark.parametrize("kind", ["int", "bigint"])
def test_whole_numbers_are_seconds(publisher: AccountFiles, bucket: Path, kind: str) -> None:
    put(bucket, "t/a.csv", "timestamp\n1700000000\n\n")
    table = catalog_table("csv", {"timestamp": kind})
    (batch,) = batches(publisher, table, ["timestamp"], epoch=["timestamp"])
    assert batch.schema.field("timestamp").type == pa.int64()
    assert batch["timestamp"].to_pylist()[0] == 1_700_000_000


def test_a_column_of_another_type_is_no_time(publisher: AccountFiles) -> None:
    table = catalog_table("csv", {"when": "string"})
    error = failure(publisher, table, ["when"], epoch=["when"])
    assert (error.status_code, "when is declared as string" in error.message) == ("SCHEMA_MISMATCH", True)


VALUES = {
    "string": (pa.array(["a"]), "a", "a"),
    "varchar(10)": (pa.array(["a"]), "a", "a"),
    "char(1)": (pa.array([b"a"]), "a", "a"),
    "tinyint": (pa.array([1], pa.int8()), 1, "1"),
    "smallint": (pa.array([1], pa.uint8()), 1, "1"),
    "int": (pa.array([1], pa.int16()), 1, "1"),
    "bigint": (pa.array([1], pa.int32()), 1, "1"),
    "float": (pa.array([0.5], pa.float32()), 0.5, "0.5"),
    "double": (pa.array([0.5], pa.float32()), 0.5, "0.5"),
    "boolean": (pa.array([True]), True, "true"),
    "date": (pa.array([date(2024, 1, 2)]), date(2024, 1, 2), "2024-01-02"),
    "decimal(10,2)": (pa.array([Decimal("1.25")], pa.decimal128(5, 2)), Decimal("1.25"), "1.25"),
    "array<string>": (pa.array([["a", None]]), ["a", None], None),
    "array<array<bigint>>": (pa.array([[[1]]], pa.large_list(pa.list_(pa.int32()))), [[1]], None),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(VALUES))
def test_every_column_type_is_read(publisher: AccountFiles, bucket: Path, kind: str) -> None:
    stored, value, text = VALUES[kind]
    put_parquet(bucket, "t/a.parquet", {"c": stored})
    assert rows(publisher, catalog_table("parquet", {"c": kind.upper()}), ["c"]) == [{"c": value}]
    if text is not None:
        put(bucket, "c/a.csv", f"c\n{text}\n")
        assert rows(publisher, catalog_table("csv", {"c": kind}, "c"), ["c"]) == [{"c": value}]


@pytest.mark.parametrize(
    ("stored", "declared", "found"),
    [
        (pa.array([1.0, None]), "bigint", "double"),
        (pa.array([1]), "string", "bigint"),
        (pa.array(["1"]), "bigint", "string"),
        (pa.array([1]), "int", "bigint"),
        (pa.array([1], pa.uint32()), "int", "bigint"),
        (pa.array([0.5]), "float", "double"),
        (pa.array([["a"]]), "string", "array<string>"),
        (pa.array([[1.5]]), "array<string>", "array<double>"),
        (pa.array([Decimal("1.255")]), "decimal(10,2)", "decimal(4,3)"),
        (pa.array([1]), "timestamp", "bigint"),
        (pa.array([{"x": 1}]), "string", "struct<x:bigint>"),
    ],
)
def test_a_file_of_another_type_is_named_with_column_and_types(
    publisher: AccountFiles, bucket: Path, stored: pa.Array, declared: str, found: str
) -> None:
    put_parquet(bucket, "t/a.parquet", {"c": stored})
    error = failure(publisher, catalog_table("parquet", {"c": declared}), ["c"])
    assert error.status_code == "SCHEMA_MISMATCH"
    assert error.message == (
        f"The column c is declared as {declared}, but in the file s3://publisher-data/t/a.parquet it is {found}."
    )


@pytest.mark.parametrize(("format_", "content"), [("csv", "other\n1\n"), ("parquet", None)])
def test_a_file_without_a_declared_column_is_named(
    publisher: AccountFiles, bucket: Path, format_: str, content: str | None
) -> None:
    put(bucket, "t/a", content) if content else put_parquet(bucket, "t/a", {"other": [1]})
    error = failure(publisher, catalog_table(format_), ["user_id"])
    assert (error.status_code, error.message) == (
        "SCHEMA_MISMATCH",
        "The file s3://publisher-data/t/a has no column user_id.",
    )


def test_two_columns_that_differ_in_case_only_are_ambiguous(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "t/a.csv", "user_id,USER_ID\n1,2\n")
    assert "more than one column" in failure(publisher, catalog_table("csv"), ["user_id"]).message


def test_a_column_that_the_table_does_not_declare_is_refused(publisher: AccountFiles) -> None:
    assert failure(publisher, catalog_table("csv"), ["nope"]).message == "The table db.t has no column nope."


def test_partition_directories_are_columns(publisher: AccountFiles, bucket: Path) -> None:
    for day, item in (("2024-01-02", 1), ("__HIVE_DEFAULT_PARTITION__", 2)):
        put(bucket, f"t/Day={day}/kind=a%20b/x.csv", f"item_id\n{item}\n")
    table = catalog_table("csv", {"item_id": "bigint", "day": "date", "kind": "string"})
    assert rows(publisher, table, ["kind", "item_id", "day"]) == [
        {"kind": "a b", "item_id": 1, "day": date(2024, 1, 2)},
        {"kind": "a b", "item_id": 2, "day": None},
    ]
    assert failure(publisher, table, ["day"]).status_code == "UNSUPPORTED_DATA_FORMAT"
    put(bucket, "u/2024/x.csv", "item_id\n1\n")
    unnamed = catalog_table("csv", {"item_id": "bigint", "day": "date"}, "u")
    assert failure(publisher, unnamed, ["item_id", "day"]).message.endswith("has no column day.")


def test_a_location_may_be_one_file(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "t/a.csv", CSV)
    put(bucket, "t/b.csv", "garbage")
    assert len(rows(publisher, catalog_table("csv", location="t/a.csv"), ["user_id"])) == 100


def test_tables_at_an_s3_endpoint_are_read(endpoint: Settings, tmp_path: Path) -> None:
    remote = Files.from_settings(endpoint, OWNERS.get).as_account(PUBLISHER)
    put_parquet(tmp_path, "a.parquet", pa.Table.from_pylist(ROWS), compression="zstd", row_group_size=7)
    remote.write("s3://publisher-data/p/a.parquet", [(tmp_path / "a.parquet").read_bytes()])
    remote.write("s3://publisher-data/c/a.csv.gz", [gzip.compress(CSV.encode())])
    remote.write("s3://publisher-data/j/a.json", [JSON.encode()])
    for format_, location in (("parquet", "p/"), ("csv", "c"), ("json", "j")):
        assert rows(remote, catalog_table(format_, location=location), list(COLUMNS)) == ROWS
    assert failure(remote, catalog_table("json", location="p"), ["user_id"]).status_code == "INVALID_DATA_FILE"


def test_columns_are_inferred_from_the_first_file(publisher: AccountFiles, bucket: Path) -> None:
    put(bucket, "c/a.csv", "id,zip,n,x,flag,day,at,nothing\nu1,01234,7,0.5,true,2024-01-02,2024-01-02 03:04:05,\n")
    assert {c.name: c.type for c in infer_columns(publisher, "s3://publisher-data/c", "csv")} == {
        "id": "string", "zip": "string", "n": "bigint", "x": "double", "flag": "boolean", "day": "date",
        "at": "timestamp", "nothing": "string",
    }  # fmt: skip
    put(bucket, "j/day=1/a.json", '{"id": "u", "n": 1, "tags": ["a"]}\n')
    assert [c.type for c in infer_columns(publisher, "s3://publisher-data/j", "json")] == [
        "string", "bigint", "array<string>", "string",
    ]  # fmt: skip
    put_parquet(bucket, "p/a.parquet", {f"c{i}": stored for i, (stored, _, _) in enumerate(VALUES.values())})
    found = [column.type for column in infer_columns(publisher, "s3://publisher-data/p/a.parquet", "parquet")]
    assert found[3:12] == [
        "tinyint",
        "smallint",
        "smallint",
        "int",
        "float",
        "float",
        "boolean",
        "date",
        "decimal(5,2)",
    ]


def test_an_inferred_table_can_be_read(publisher: AccountFiles, bucket: Path) -> None:
    put_parquet(bucket, "p/a.parquet", {name: stored for name, (stored, _, _) in VALUES.items() if name != "char(1)"})
    columns = infer_columns(publisher, "s3://publisher-data/p/", "parquet")
    table = CatalogTable(PUBLISHER, "db", "t", "s3://publisher-data/p/", "parquet", columns)
    assert len(rows(publisher, table, [column.name for column in columns])) == 1


@pytest.mark.parametrize(
    "kind",
    ["map<string,string>", "struct<a:int>", "uniontype<int>", "decimal(99,2)", "", "array<" * 9 + "int" + ">" * 9],
)
def test_a_type_that_is_not_read_is_refused_when_asked_for(publisher: AccountFiles, kind: str) -> None:
    error = failure(publisher, catalog_table("csv", {"c": kind}), ["c"])
    assert error.status_code == "UNSUPPORTED_DATA_FORMAT"
