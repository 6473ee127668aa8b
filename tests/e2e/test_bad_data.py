"""Tables and seeds that cannot be used: the resource ends in CREATE_FAILED with a code and a sentence."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.e2e.conftest import Parties, refused
from tests.population import (
    SCHEMA,
    allow,
    configure,
    generate,
    population,
    put_parquet,
    put_seed,
    register_table,
    start,
    train,
)
from tests.server import wait

SMALL = population(users=400, items=100, per_user=8)


@pytest.fixture(scope="module")
def tables(parties: Parties) -> Parties:
    """A table of every way a table can be wrong, registered before its files were spoilt."""
    good = SMALL.table
    for name in ("missing", "empty", "truncated", "half", "types"):
        put_parquet(parties.publisher, "publisher-data", f"{name}/part-0.parquet", good)
        register_table(parties.server, parties.publisher, name, f"s3://publisher-data/{name}")
    s3 = parties.publisher.s3
    s3.delete_object(Bucket="publisher-data", Key="missing/part-0.parquet")
    s3.put_object(Bucket="publisher-data", Key="empty/part-0.parquet", Body=b"")
    whole = s3.get_object(Bucket="publisher-data", Key="truncated/part-0.parquet")["Body"].read()
    s3.put_object(Bucket="publisher-data", Key="truncated/part-0.parquet", Body=whole[: len(whole) // 2])
    s3.put_object(Bucket="publisher-data", Key="half/part-1.parquet", Body=b"PAR1 and then nothing")
    retyped = good.set_column(0, "user_id", pa.array(np.random.default_rng(0).random(len(good))))
    put_parquet(parties.publisher, "publisher-data", "types/part-0.parquet", retyped)
    return parties


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ("missing", "INPUT_NOT_FOUND"),
        ("empty", "INVALID_DATA_FILE"),
        ("truncated", "INVALID_DATA_FILE"),
        ("half", "INVALID_DATA_FILE"),
        ("types", "SCHEMA_MISMATCH"),
        ("never-registered", "TABLE_NOT_FOUND"),
    ],
)
def test_a_table_whose_files_are_bad_fails_the_model(tables: Parties, table: str, code: str) -> None:
    model = train(tables.publisher, f"bad-{table}", table)
    assert (model["status"], model["statusDetails"]["statusCode"]) == ("CREATE_FAILED", code), model
    message = model["statusDetails"]["message"]
    assert table in message
    assert str(tables.server.data_dir) not in message, "a path of the server is nobody's business"


def values(**columns: Any) -> pa.Table:
    table = SMALL.table
    for name, change in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, change(table.column(name)))
    return table


@pytest.mark.parametrize(
    ("name", "table", "code"),
    [
        ("null-ids", values(user_id=lambda c: pa.array([None, *c.to_pylist()[1:]])), "INVALID_TRAINING_DATA"),
        ("null-times", values(timestamp=lambda c: pa.array([None, *c.to_pylist()[1:]])), "INVALID_TRAINING_DATA"),
        ("milliseconds", values(timestamp=lambda c: pa.array(c.to_numpy() * 1000)), "INVALID_TRAINING_DATA"),
        ("before-1970", values(timestamp=lambda c: pa.array(-c.to_numpy())), "INVALID_TRAINING_DATA"),
        ("few-interactions", SMALL.table.slice(0, 900), "INSUFFICIENT_INTERACTIONS"),
        ("few-users", population(users=90, items=100, per_user=20).table, "INSUFFICIENT_USERS"),
    ],
)
def test_values_that_no_model_can_be_made_of_fail_it(parties: Parties, name: str, table: pa.Table, code: str) -> None:
    location = put_parquet(parties.publisher, "publisher-data", f"{name}/part-0.parquet", table)
    register_table(parties.server, parties.publisher, name, location)
    model = train(parties.publisher, name, name)
    assert (model["status"], model["statusDetails"]["statusCode"]) == ("CREATE_FAILED", code), model


def test_a_schema_that_disagrees_with_the_table_says_where(parties: Parties) -> None:
    absent = [*SCHEMA[:2], {"columnName": "when", "columnTypes": ["TIMESTAMP"]}]
    model = train(parties.publisher, "absent", "clicks", schema=absent)
    assert model["statusDetails"]["statusCode"] == "SCHEMA_MISMATCH"
    assert "'when'" in model["statusDetails"]["message"]
    mistyped = [
        {"columnName": "user_id", "columnTypes": ["TIMESTAMP"]},
        {"columnName": "item_id", "columnTypes": ["ITEM_ID"]},
        {"columnName": "timestamp", "columnTypes": ["USER_ID"]},
    ]
    model = train(parties.publisher, "mistyped", "clicks", schema=mistyped)
    assert model["statusDetails"]["statusCode"] == "SCHEMA_MISMATCH"


def test_a_time_window_leaves_the_rest_out(parties: Parties) -> None:
    model = train(
        parties.publisher, "windowed", "clicks", trainingDataStartTime=1_699_000_000, trainingDataEndTime=1_700_000_000
    )
    assert model["statusDetails"]["statusCode"] == "INSUFFICIENT_INTERACTIONS"
    assert int(model["trainingDataStartTime"].timestamp()) == 1_699_000_000


LINES = [json.dumps({"user_id": f"user-{n * 5:05d}"}) for n in range(60)]


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("24-ids", "\n".join(LINES[:24]), "SEED_SIZE_BELOW_MINIMUM"),
        ("24-ids-repeated", "\n".join(LINES[:24] * 9), "SEED_SIZE_BELOW_MINIMUM"),
        ("nobody", "\n".join(json.dumps({"user_id": f"x{n}"}) for n in range(60)), "SEED_MATCH_BELOW_MINIMUM"),
        ("broken-end", "\n".join(LINES) + '\n{"user_id": "user-00', "INVALID_SEED_DATA"),
        ("not-json", "user_id\nuser-00000\n", "INVALID_SEED_DATA"),
        ("other-key", "\n".join(LINES).replace("user_id", "id"), "INVALID_SEED_DATA"),
        ("null-id", "\n".join([*LINES, '{"user_id": null}']), "INVALID_SEED_DATA"),
        ("latin-1", "\n".join(LINES).encode() + b'\n{"user_id": "\xe9"}', "INVALID_SEED_DATA"),
        ("nothing", "", "SEED_SIZE_BELOW_MINIMUM"),
        ("everybody", "".join(f'{{"user_id": "user-{n:05d}"}}\n' for n in range(1500)), "SEED_COVERS_MODEL"),
        ("600000-ids", "".join(f'{{"user_id": "u{n}"}}\n' for n in range(600_000)), "SEED_TOO_LARGE"),
    ],
)
def test_a_bad_seed_fails_the_job_and_the_owner_learns_only_that(
    parties: Parties, name: str, body: str | bytes, code: str
) -> None:
    raw = body.encode() if isinstance(body, str) else body
    parties.advertiser.s3.put_object(Bucket="advertiser-seeds", Key=f"{name}.jsonl", Body=raw)
    job = generate(parties.advertiser, name, parties.configured_arn, f"s3://advertiser-seeds/{name}.jsonl")
    assert (job["status"], job["statusDetails"]["statusCode"]) == ("CREATE_FAILED", code), job
    owners_arn = job["audienceGenerationJobArn"].replace(parties.advertiser.id, parties.publisher.id)
    theirs = parties.publisher.ml.get_audience_generation_job(audienceGenerationJobArn=owners_arn)
    assert theirs["status"] == "CREATE_FAILED"
    assert theirs["statusDetails"]["statusCode"] in ("SEED_REJECTED", "SEED_MATCH_BELOW_MINIMUM")
    assert "line" not in theirs["statusDetails"]["message"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("blank-lines", ("\n\n" + "\n \n".join(LINES) + "\n\n").encode()),
        ("duplicates", "\r\n".join(LINES * 3).encode()),
        ("compressed.jsonl.gz", gzip.compress("\n".join(LINES).encode())),
    ],
)
def test_a_seed_may_be_untidy(parties: Parties, name: str, body: bytes) -> None:
    parties.advertiser.s3.put_object(Bucket="advertiser-seeds", Key=name, Body=body)
    job = generate(parties.advertiser, name, parties.configured_arn, f"s3://advertiser-seeds/{name}")
    assert job["status"] == "ACTIVE", job


def test_a_seed_of_2_gb_fails_by_its_size_at_once(parties: Parties) -> None:
    path = parties.server.data_dir / "s3" / parties.advertiser.id / "advertiser-seeds" / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(2_000_000_000)
    job = generate(parties.advertiser, "huge", parties.configured_arn, "s3://advertiser-seeds/huge.jsonl")
    path.unlink()
    assert job["statusDetails"]["statusCode"] == "SEED_TOO_LARGE", job


def test_what_is_being_made_cannot_be_deleted_and_still_ends_well(parties: Parties) -> None:
    ml = parties.publisher.ml
    arn = start(parties.publisher, "running", parties.configured_arn, own_seed(parties))
    assert "CREATE_" in refused("ConflictException", ml.delete_audience_generation_job, audienceGenerationJobArn=arn)
    assert wait(ml.get_audience_generation_job, audienceGenerationJobArn=arn)["status"] == "ACTIVE"
    ml.delete_audience_generation_job(audienceGenerationJobArn=arn)
    ml.delete_audience_generation_job(audienceGenerationJobArn=arn)


def own_seed(parties: Parties) -> str:
    parties.publisher.s3.put_object(Bucket="publisher-data", Key="own.jsonl", Body="\n".join(LINES).encode())
    return "s3://publisher-data/own.jsonl"


@pytest.mark.parametrize("file_format", ["csv", "json"])
def test_csv_and_json_tables_train_as_parquet_does(parties: Parties, file_format: str) -> None:
    rows = SMALL.table.to_pylist()
    if file_format == "csv":
        lines = ["user_id,item_id,timestamp", *(",".join(map(str, row.values())) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    name = f"as-{file_format}"
    body = gzip.compress("\n".join(lines).encode())
    parties.publisher.s3.put_object(Bucket="publisher-data", Key=f"{name}/part.{file_format}.gz", Body=body)
    register_table(parties.server, parties.publisher, name, f"s3://publisher-data/{name}/", file_format)
    model = train(parties.publisher, name, name)
    assert model["status"] == "ACTIVE", model


def test_zstd_parquet_with_features_and_timestamps_trains_and_is_encrypted(parties: Parties) -> None:
    table = SMALL.table
    rng = np.random.default_rng(1)
    marker = "only-in-this-table"
    table = table.set_column(2, "timestamp", pa.array(table.column("timestamp").to_numpy() * 1000, pa.timestamp("ms")))
    table = table.append_column("channel", pa.array(rng.choice(["web", marker], len(table))))
    table = table.append_column("price", pa.array(rng.random(len(table))))
    location = put_parquet(parties.publisher, "publisher-data", "features/p.parquet", table, compression="zstd")
    register_table(parties.server, parties.publisher, "features", location)
    schema = [
        *SCHEMA,
        {"columnName": "channel", "columnTypes": ["CATEGORICAL_FEATURE"]},
        {"columnName": "price", "columnTypes": ["NUMERICAL_FEATURE"]},
    ]
    key = f"arn:aws:kms:us-east-1:{parties.publisher.id}:key/1234"
    model = train(parties.publisher, "features", "features", schema=schema, kmsKeyArn=key)
    assert model["status"] == "ACTIVE", model
    assert model["kmsKeyArn"] == key
    artifacts = parties.server.data_dir / "artifacts"
    kept = [p for p in artifacts.rglob("*") if p.is_file()]
    assert not [p for p in kept if marker.encode() in p.read_bytes()]
    configured = configure(parties.publisher, "features", model["audienceModelArn"], "s3://publisher-out/f")
    job = generate(parties.publisher, "features", configured, own_seed(parties))
    assert job["status"] == "ACTIVE", job

    for wrapping_key in (parties.server.data_dir / "keys" / "kms").iterdir():
        wrapping_key.unlink()
    allow(parties.publisher, configured, parties.advertiser.id)
    seed = put_seed(parties.advertiser, "advertiser-seeds", "f.jsonl", parties.seed_ids)
    lost = generate(parties.advertiser, "key lost", configured, seed)
    assert lost["statusDetails"]["statusCode"] == "MODEL_UNAVAILABLE", "without its key a model cannot be read"
    assert "log" not in lost["statusDetails"]["message"], "why is the owner's affair"
