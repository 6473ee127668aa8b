"""A model that the server trains on Spark is the model that it trains by itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.population import configure, generate, population, put_parquet, put_seed, register_table, train
from tests.server import Account, Server, running

pytest.importorskip("pyspark", reason="PySpark is not installed: pip install 'whiteroom[spark]'")
if not shutil.which("java"):
    pytest.skip("Spark needs Java", allow_module_level=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Tables of 10,000 interactions and more go to Spark."""
    settings = {"WHITEROOM_SPARK_MASTER": "local[2]", "WHITEROOM_SPARK_FROM_INTERACTIONS": "10000"}
    with running(tmp_path_factory.mktemp("spark") / "data", environment=settings) as server:
        yield server


def told(publisher: Account, name: str, model: dict[str, str], seed: str) -> dict[str, object]:
    configured = configure(publisher, name, model["audienceModelArn"], f"s3://publisher-data/{name}/")
    job = generate(publisher, name, configured, seed)
    assert job["status"] == "ACTIVE", job
    metrics: dict[str, object] = job["metrics"]
    return metrics


def test_a_large_table_is_trained_on_spark_and_gives_the_same_metrics(server: Server) -> None:
    publisher = server.account("111122223333", "publisher", "publisher-data")
    people = population()
    location = put_parquet(publisher, "publisher-data", "large/part-0.parquet", people.table)
    register_table(server, publisher, "large", location)
    seed = put_seed(publisher, "publisher-data", "seed.jsonl", people.audience[:60])
    by_spark = train(publisher, "large", "large", seconds=270)
    assert by_spark["status"] == "ACTIVE", by_spark
    logs = "".join(log.read_text(errors="replace") for log in (server.data_dir / "logs" / "jobs").glob("*"))
    assert "spark" in logs.lower(), "it was trained on Spark"
    metrics = told(publisher, "large", by_spark, seed)
    assert not list((server.data_dir / "artifacts").rglob("rows-*")), "the copy is gone"

    half = put_parquet(publisher, "publisher-data", "small/part-0.parquet", people.table.slice(0, 9_000))
    register_table(server, publisher, "small", half)
    assert train(publisher, "small", "small")["status"] == "ACTIVE", "few rows are trained on without it"
    assert metrics["recallMetric"] > 0.8
