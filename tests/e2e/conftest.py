"""One server for the module, with a publisher whose model is trained and an advertiser who may use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.population import Population, allow, configure, population, put_parquet, put_seed, register_table, train
from tests.server import Account, Server, running


@dataclass(frozen=True)
class Parties:
    server: Server
    publisher: Account
    advertiser: Account
    stranger: Account
    population: Population
    model_arn: str
    configured_arn: str
    seed_ids: list[str]
    seed_uri: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir: Path = tmp_path_factory.mktemp("server") / "data"
    with running(data_dir) as server:
        yield server


@pytest.fixture(scope="module")
def parties(server: Server) -> Parties:
    publisher = server.account("111122223333", "publisher", "publisher-data", "publisher-out")
    advertiser = server.account("444455556666", "advertiser", "advertiser-seeds")
    stranger = server.account("777788889999", "stranger", "stranger-data")
    people = population()
    location = put_parquet(publisher, "publisher-data", "clicks/part-0.parquet", people.table)
    register_table(server, publisher, "clicks", location.rsplit("/", 1)[0])
    model = train(publisher, "clicks", "clicks")
    assert model["status"] == "ACTIVE", model
    configured = configure(publisher, "clicks", model["audienceModelArn"], "s3://publisher-out/audiences/")
    allow(publisher, configured, advertiser.id)
    seed_ids = people.audience[:60]
    seed_uri = put_seed(advertiser, "advertiser-seeds", "seed.jsonl", seed_ids)
    return Parties(
        *(server, publisher, advertiser, stranger, people),
        *(model["audienceModelArn"], configured, seed_ids, seed_uri),
    )


def refused(error: str, call: Any, **arguments: Any) -> str:
    """The message of the error that the call must raise."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == error, caught.value.response
    message: str = caught.value.response["Error"]["Message"]
    return message
