"""The same story with the state in PostgreSQL, the buckets behind an S3 endpoint and the tables in AWS Glue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.databases import Cluster
from tests.population import (
    allow,
    configure,
    export,
    exported_ids,
    generate,
    population,
    put_parquet,
    put_seed,
    register_table,
    train,
)
from tests.server import running

PEOPLE = population(users=400, items=100, per_user=8)
SERVER_KEY = ("server-key", "server-secret")


@pytest.fixture
def moto() -> Any:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(service: str, url: str) -> Any:
    key, secret = SERVER_KEY
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
    )


def put_in_glue(url: str, location: str) -> None:
    glue = client("glue", url)
    columns = [{"Name": "user_id", "Type": "string"}, {"Name": "item_id", "Type": "string"}]
    glue.create_database(DatabaseInput={"Name": "shop"})
    glue.create_table(
        DatabaseName="shop",
        TableInput={
            "Name": "clicks",
            "StorageDescriptor": {
                "Columns": [*columns, {"Name": "timestamp", "Type": "bigint"}],
                "Location": location,
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "SerdeInfo": {
                    "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                },
            },
        },
    )  # fmt: skip


def test_an_audience_from_s3_and_glue_endpoints(tmp_path: Path, moto: str) -> None:
    key, secret = SERVER_KEY
    environment = {
        "WHITEROOM_S3_ENDPOINT_URL": moto,
        "WHITEROOM_S3_ACCESS_KEY_ID": key,
        "WHITEROOM_S3_SECRET_ACCESS_KEY": secret,
        "WHITEROOM_GLUE_ENDPOINT_URL": moto,
        "WHITEROOM_GLUE_ACCESS_KEY_ID": key,
        "WHITEROOM_GLUE_SECRET_ACCESS_KEY": secret,
    }
    for bucket in ("publisher-data", "publisher-out", "advertiser-seeds"):
        client("s3", moto).create_bucket(Bucket=bucket)
    with running(tmp_path / "data", environment=environment) as server:
        publisher = server.account("111122223333", "publisher", "publisher-data", "publisher-out")
        advertiser = server.account("444455556666", "advertiser", "advertiser-seeds")
        # Here the objects are the endpoint's; the accounts' keys are known to our server only.
        s3 = client("s3", moto)
        for account in (publisher, advertiser):
            account.__dict__["s3"] = s3
        put_in_glue(moto, put_parquet(publisher, "publisher-data", "clicks/p.parquet", PEOPLE.table).rsplit("/", 1)[0])
        model = train(publisher, "clicks", "clicks")
        assert model["status"] == "ACTIVE", model
        configured = configure(publisher, "clicks", model["audienceModelArn"], "s3://publisher-out/a")
        allow(publisher, configured, advertiser.id)
        seed = put_seed(advertiser, "advertiser-seeds", "seed.jsonl", PEOPLE.audience[:40])
        job = generate(advertiser, "clicks", configured, seed)
        assert job["status"] == "ACTIVE", job
        owners = job["audienceGenerationJobArn"].replace(advertiser.id, publisher.id)
        done = export(publisher, "top", owners, "PERCENTAGE", 10)
        assert len(exported_ids(publisher, done["outputLocation"])) == 40


def test_an_audience_with_the_state_in_postgresql(tmp_path: Path, postgresql: Cluster) -> None:
    environment = {"WHITEROOM_DATABASE_URL": postgresql.new_database()}
    with running(tmp_path / "data", environment=environment) as server:
        publisher = server.account("111122223333", "publisher", "publisher-data", "publisher-out")
        location = put_parquet(publisher, "publisher-data", "clicks/p.parquet", PEOPLE.table)
        register_table(server, publisher, "clicks", location)
        model = train(publisher, "clicks", "clicks")
        assert model["status"] == "ACTIVE", model
        configured = configure(publisher, "clicks", model["audienceModelArn"], "s3://publisher-out/a")
        seed = put_seed(publisher, "publisher-data", "seed.jsonl", PEOPLE.audience[:40])
        job = generate(publisher, "clicks", configured, seed)
        assert job["status"] == "ACTIVE", job
        done = export(publisher, "top", job["audienceGenerationJobArn"], "PERCENTAGE", 10)
        assert len(exported_ids(publisher, done["outputLocation"])) == 40
        assert not (tmp_path / "data" / "whiteroom.db").exists()
    with running(tmp_path / "data", environment=environment) as server:
        again = replace(publisher, api_url=server.urls["apiUrl"])
        assert again.ml.get_audience_model(audienceModelArn=model["audienceModelArn"])["status"] == "ACTIVE"
