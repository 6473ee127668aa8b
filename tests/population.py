"""A small population with a known truth, and the publisher's way from its interactions to an audience model."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.server import Account, Server, wait

SCHEMA = [
    {"columnName": "user_id", "columnTypes": ["USER_ID"]},
    {"columnName": "item_id", "columnTypes": ["ITEM_ID"]},
    {"columnName": "timestamp", "columnTypes": ["TIMESTAMP"]},
]


@dataclass(frozen=True)
class Population:
    """`audience` holds the users who truly belong together; `table` is what everybody did."""

    table: pa.Table
    users: list[str]
    audience: list[str]


def population(users: int = 1500, items: int = 300, per_user: int = 12, state: int = 7) -> Population:
    """Every fifth user likes the first fifth of the items most; the others like everything alike."""
    rng = np.random.default_rng(state)
    fans = np.arange(users) % 5 == 0
    draws = rng.integers(0, items, (users, per_user))
    draws[fans, : per_user * 2 // 3] = rng.integers(0, items // 5, (int(fans.sum()), per_user * 2 // 3))
    names = [f"user-{u:05d}" for u in range(users)]
    table = pa.table(
        {
            "user_id": np.repeat(names, per_user),
            "item_id": [f"item-{i:04d}" for i in draws.ravel()],
            "timestamp": pa.array(rng.integers(1_600_000_000, 1_700_000_000, draws.size), pa.int64()),
        }
    )
    return Population(table, names, [name for name, fan in zip(names, fans, strict=True) if fan])


def put_parquet(account: Account, bucket: str, key: str, table: pa.Table, **options: Any) -> str:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    account.s3.put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())
    return f"s3://{bucket}/{key}"


def put_seed(account: Account, bucket: str, key: str, ids: list[Any]) -> str:
    body = "".join(json.dumps({"user_id": i}) + "\n" for i in ids)
    account.s3.put_object(Bucket=bucket, Key=key, Body=body.encode())
    return f"s3://{bucket}/{key}"


def dataset_request(
    account: Account, name: str, table: str, schema: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    source = {"glueDataSource": {"databaseName": "shop", "tableName": table}}
    config = {"schema": schema or SCHEMA, "dataSource": source}
    return {
        "name": name,
        "roleArn": account.role,
        "trainingData": [{"type": "INTERACTIONS", "inputConfig": config}],
    }


def register_table(server: Server, account: Account, table: str, location: str, file_format: str = "parquet") -> None:
    server.cli(
        *("table", "create", "--account", account.id, "--database", "shop", "--table", table),
        *("--location", location, "--format", file_format),
    )


def train(account: Account, name: str, table: str, **options: Any) -> dict[str, Any]:
    """Dataset and model of one name; the model's document once it has come to an end."""
    schema, seconds = options.pop("schema", None), options.pop("seconds", 120)
    dataset = account.ml.create_training_dataset(**dataset_request(account, name, table, schema))
    arn = dataset["trainingDatasetArn"]
    model = account.ml.create_audience_model(name=name, trainingDatasetArn=arn, **options)
    return wait(account.ml.get_audience_model, seconds, audienceModelArn=model["audienceModelArn"])


def configure(account: Account, name: str, model_arn: str, output: str, **options: Any) -> str:
    """A configured audience model that shares its metrics; its ARN."""
    options = {"sharedAudienceMetrics": ["ALL"], "minMatchingSeedSize": 25} | options
    made = account.ml.create_configured_audience_model(
        name=name,
        audienceModelArn=model_arn,
        outputConfig={"destination": {"s3Destination": {"s3Uri": output}}, "roleArn": account.role},
        **options,
    )
    arn: str = made["configuredAudienceModelArn"]
    return arn


def allow(owner: Account, configured_arn: str, *accounts: str, condition: dict[str, Any] | None = None) -> str:
    """Let other accounts start generation jobs; the policy's hash."""
    jobs = configured_arn.rsplit(":", 1)[0] + ":audience-generation-job/*"
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"AWS": list(accounts)},
        "Action": "cleanrooms-ml:StartAudienceGenerationJob",
        "Resource": [configured_arn, jobs],
    }
    if condition:
        statement["Condition"] = condition
    put = owner.ml.put_configured_audience_model_policy(
        configuredAudienceModelArn=configured_arn,
        configuredAudienceModelPolicy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    digest: str = put["policyHash"]
    return digest


def start(account: Account, name: str, configured_arn: str, seed_uri: str, **options: Any) -> str:
    """A generation job from a seed in S3; its ARN."""
    job = account.ml.start_audience_generation_job(
        name=name,
        configuredAudienceModelArn=configured_arn,
        seedAudience={"dataSource": {"s3Uri": seed_uri}, "roleArn": account.role},
        **options,
    )
    arn: str = job["audienceGenerationJobArn"]
    return arn


def generate(account: Account, name: str, configured_arn: str, seed_uri: str, **options: Any) -> dict[str, Any]:
    """As `start`; the job's document once it has come to an end."""
    arn = start(account, name, configured_arn, seed_uri, **options)
    return wait(account.ml.get_audience_generation_job, audienceGenerationJobArn=arn)


def export(account: Account, name: str, job_arn: str, kind: str, value: int) -> dict[str, Any]:
    """Start an export and wait; its entry in the list of the account that started it."""
    account.ml.start_audience_export_job(
        name=name, audienceGenerationJobArn=job_arn, audienceSize={"type": kind, "value": value}
    )

    def entry(**_: str) -> dict[str, Any]:
        jobs = account.ml.list_audience_export_jobs(audienceGenerationJobArn=job_arn)["audienceExportJobs"]
        found: dict[str, Any] = next(job for job in jobs if job["name"] == name)
        return found

    return wait(entry)


def exported_ids(owner: Account, location: str) -> list[str]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    body = owner.s3.get_object(Bucket=bucket, Key=f"{key}/part-00000.jsonl")["Body"].read()
    return [json.loads(line)["user_id"] for line in body.decode().splitlines()]
