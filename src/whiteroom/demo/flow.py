"""The lookalike flow as two companies walk it: plain boto3 against a server's two endpoints.

Knows nothing of the server's inside but how an operator registers accounts, buckets and tables.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whiteroom import registry
from whiteroom.config import PRESETS
from whiteroom.demo.data import DemoData
from whiteroom.problems import Problem
from whiteroom.profiles import REGION

if TYPE_CHECKING:
    from whiteroom.config import Settings
    from whiteroom.datadir import Running

PUBLISHER, ADVERTISER = "111122223333", "444455556666"
PERCENTAGES = (1, 2, 5, 10, 20)
FLOORS = PRESETS["open"]
"""What the demo's server asks for: it runs by the default settings."""
_POLL_SECONDS = 0.2

Step = Callable[[str], AbstractContextManager[Callable[[str], None]]]
"""Opens a step of the story by its sentence; gives a function that says how it goes."""


@dataclass(frozen=True)
class Party:
    """One company's clients, made of its own access key only."""

    account: str
    s3: Any
    cleanrooms: Any
    bucket: str

    @property
    def role(self) -> str:
        return f"arn:aws:iam::{self.account}:role/whiteroom"


@dataclass(frozen=True)
class Audience:
    """An exported audience: its size in percent of all users, its relevance, its users best first, and where it is."""

    percent: int
    relevance: float | None
    users: list[str]
    location: str


@dataclass(frozen=True)
class Told:
    """What the service answered: audiences from small to large, its own recall, and what it refused the advertiser."""

    audiences: list[Audience]
    recall: float | None
    refusals: list[str]


def walk(settings: Settings, running: Running, data: DemoData, run: str, step: Step) -> Told:
    """From interactions to exported audiences. `run` makes the names of this run's resources unique."""
    with step("A publisher and an advertiser register, each with a key and a bucket"):
        publisher = join(settings, running, PUBLISHER, "publisher", f"publisher-{run}")
        advertiser = join(settings, running, ADVERTISER, "advertiser", f"advertiser-{run}")
    with step("The publisher uploads its interactions (S3)"):
        upload_interactions(publisher, data)
        table = f"interactions_{run.replace('-', '_')}"
        location = f"s3://{publisher.bucket}/interactions/"
        registry.create_table(settings, PUBLISHER, "demo", table, location, "parquet")
    with step("The publisher trains an audience model") as say:
        model = train(publisher, table, run, say)
    with step("The publisher offers it to the advertiser, by a policy") as say:
        configured, percentages = offer(publisher, model, data.users, run)
        say(", ".join(f"{p} %" for p in percentages))
    with step("The advertiser brings its seed and has an audience made") as say:
        job = generate(advertiser, configured, data.seed, run, say)
    metrics = advertiser.cleanrooms.get_audience_generation_job(audienceGenerationJobArn=job).get("metrics", {})
    relevance = {m["audienceSize"]["value"]: m.get("score") for m in metrics.get("relevanceMetrics", ())}
    with step("The publisher exports every size and reads its users") as say:
        # One execution has two ARNs, each party's with its own account in it.
        mine = job.replace(f":{ADVERTISER}:", f":{PUBLISHER}:")
        locations = export(publisher, mine, percentages, run, say)
        audiences = [
            Audience(percent, relevance.get(percent), read_users(publisher, location), location)
            for percent, location in locations.items()
        ]
    with step("The advertiser tries to look at what is not its own"):
        refusals = pry(advertiser, model, audiences[0].location)
    return Told(audiences, metrics.get("recallMetric"), refusals)


def join(settings: Settings, running: Running, account: str, name: str, bucket: str) -> Party:
    """Register the account with a key, give it a bucket, and make the clients that its people would use."""
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    key = registry.create_key(settings, account, name)
    registry.create_bucket(settings, bucket, account)
    # Not the profile that AWS_PROFILE may name on this machine: it is somebody else's.
    own = Session({"profile": (None, None, None, None)})
    session = boto3.session.Session(key.access_key_id, key.secret_access_key, region_name=REGION, botocore_session=own)
    path = Config(s3={"addressing_style": "path"})
    return Party(
        account=account,
        s3=session.client("s3", endpoint_url=running.s3_url, config=path),
        cleanrooms=session.client("cleanroomsml", endpoint_url=running.api_url),
        bucket=bucket,
    )


def upload_interactions(publisher: Party, data: DemoData) -> None:
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(data.interactions, buffer, compression="zstd")
    publisher.s3.put_object(Bucket=publisher.bucket, Key="interactions/part-0.parquet", Body=buffer.getvalue())


def train(publisher: Party, table: str, run: str, say: Callable[[str], None]) -> str:
    """Describe the table, train on it, and wait. Returns the model's ARN."""
    kinds = {"user_id": "USER_ID", "item_id": "ITEM_ID", "timestamp": "TIMESTAMP"}
    schema = [{"columnName": name, "columnTypes": [kind]} for name, kind in kinds.items()]
    source = {"glueDataSource": {"databaseName": "demo", "tableName": table}}
    dataset = publisher.cleanrooms.create_training_dataset(
        name=f"interactions-{run}",
        roleArn=publisher.role,
        trainingData=[{"type": "INTERACTIONS", "inputConfig": {"schema": schema, "dataSource": source}}],
    )["trainingDatasetArn"]
    model: str = publisher.cleanrooms.create_audience_model(name=f"model-{run}", trainingDatasetArn=dataset)[
        "audienceModelArn"
    ]
    _until_active(lambda: publisher.cleanrooms.get_audience_model(audienceModelArn=model), say)
    return model


def offer(publisher: Party, model: str, users: int, run: str) -> tuple[str, list[int]]:
    """Configure the model and let the advertiser use it. Returns the ARN and the sizes in percent of the users."""
    fewest = FLOORS.min_export_users
    percentages = [percent for percent in PERCENTAGES if users * percent // 100 >= fewest]
    if not percentages:
        raise Problem(f"{users} users are too few: the smallest audience that may be exported has {fewest}.")
    destination = {"s3Destination": {"s3Uri": f"s3://{publisher.bucket}/audiences"}}
    configured = publisher.cleanrooms.create_configured_audience_model(
        name=f"offer-{run}",
        audienceModelArn=model,
        outputConfig={"destination": destination, "roleArn": publisher.role},
        sharedAudienceMetrics=["ALL"],
        minMatchingSeedSize=FLOORS.min_seed_ids,
        audienceSizeConfig={"audienceSizeType": "PERCENTAGE", "audienceSizeBins": percentages},
    )["configuredAudienceModelArn"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam::{ADVERTISER}:root"]},
                "Action": ["cleanrooms-ml:StartAudienceGenerationJob"],
                "Resource": [configured, f"arn:aws:cleanrooms-ml:{REGION}:{PUBLISHER}:audience-generation-job/*"],
            }
        ],
    }
    publisher.cleanrooms.put_configured_audience_model_policy(
        configuredAudienceModelArn=configured, configuredAudienceModelPolicy=json.dumps(policy)
    )
    return configured, percentages


def generate(advertiser: Party, configured: str, seed: list[str], run: str, say: Callable[[str], None]) -> str:
    """Upload the seed and have the audience made. Returns the advertiser's ARN of the job."""
    lines = "".join(json.dumps({"user_id": user}) + "\n" for user in seed)
    advertiser.s3.put_object(Bucket=advertiser.bucket, Key="seed.jsonl", Body=lines.encode())
    job: str = advertiser.cleanrooms.start_audience_generation_job(
        name=f"campaign-{run}",
        configuredAudienceModelArn=configured,
        seedAudience={
            "dataSource": {"s3Uri": f"s3://{advertiser.bucket}/seed.jsonl"},
            "roleArn": advertiser.role,
        },
        includeSeedInOutput=False,
    )["audienceGenerationJobArn"]
    _until_active(lambda: advertiser.cleanrooms.get_audience_generation_job(audienceGenerationJobArn=job), say)
    return job


def export(publisher: Party, job: str, percentages: list[int], run: str, say: Callable[[str], None]) -> dict[int, str]:
    """Export each size and wait for all. Returns where each lies."""
    for percent in percentages:
        publisher.cleanrooms.start_audience_export_job(
            name=f"top-{percent}-percent-{run}",
            audienceGenerationJobArn=job,
            audienceSize={"type": "PERCENTAGE", "value": percent},
        )
    while True:
        answer = publisher.cleanrooms.list_audience_export_jobs(audienceGenerationJobArn=job)
        exports = answer["audienceExportJobs"]
        for entry in exports:
            _check(entry)
        done = {e["audienceSize"]["value"]: e["outputLocation"] for e in exports if e["status"] == "ACTIVE"}
        say(f"{len(done)} of {len(percentages)}")
        if len(done) == len(percentages):
            return dict(sorted(done.items()))
        time.sleep(_POLL_SECONDS)


def read_users(publisher: Party, location: str) -> list[str]:
    """The exported user ids, best first."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    listed = publisher.s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    keys = sorted(entry["Key"] for entry in listed if "/part-" in entry["Key"])
    return [user for key in keys for user in _json_users(publisher.s3.get_object(Bucket=bucket, Key=key)["Body"])]


def pry(advertiser: Party, model: str, location: str) -> list[str]:
    """Try what must fail; returns a sentence for each refusal. Raises Problem if anything is given away."""
    from botocore.exceptions import ClientError

    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    attempts: dict[str, Callable[[], Any]] = {
        "the publisher's model": lambda: advertiser.cleanrooms.get_audience_model(audienceModelArn=model),
        "the exported users": lambda: advertiser.s3.list_objects_v2(Bucket=bucket, Prefix=prefix),
    }
    refusals = []
    for what, attempt in attempts.items():
        try:
            attempt()
        except ClientError as error:
            refusals.append(f"{what}: {error.response['Error']['Code']}")
        else:
            raise Problem(f"The advertiser could read {what}. This is a fault in Whiteroom; please report it.")
    return refusals


def _json_users(body: Any) -> Iterator[str]:
    for line in body.iter_lines():
        yield str(json.loads(line)["user_id"])


def _until_active(get: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> None:
    while (document := get())["status"] != "ACTIVE":
        _check(document)
        say(document["status"])
        time.sleep(_POLL_SECONDS)


def _check(document: dict[str, Any]) -> None:
    if document["status"] == "CREATE_FAILED":
        details = document.get("statusDetails", {})
        raise Problem(f"{document['name']} failed: {details.get('statusCode')}: {details.get('message')}")
