"""On a Spark cluster (here two local workers) the engine gives what it gives on one machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from tests.engines.populations import noise, small, tribes
from whiteroom.engines.lookalike import InteractionsError, Lookalike, Schema, space

pytest.importorskip("pyspark", reason="PySpark is not installed: pip install 'whiteroom[spark]'")
if not shutil.which("java"):
    pytest.skip("Spark needs Java", allow_module_level=True)

from whiteroom.engines.lookalike import spark as on_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OPTIONS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "150",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


ROUNDING = {"float32": (1e-5, 1e-4), "float16": (1e-3, 1e-2), "int8": (1, 1e-2)}
"""How much a number of a vector and a score may differ."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch:
        # Spark makes directories where it starts, and other sessions of the process would find its variable.
        patch.chdir(tmp_path_factory.mktemp("spark"))
        patch.setenv("PYSPARK_PYTHON", "")
        patch.delenv("PYSPARK_PYTHON")
        session = on_spark.session("local[2]", OPTIONS)
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


def both(cluster: SparkSession, table: pa.Table, schema: Schema | None = None, **parameters: Any) -> list[Lookalike]:
    """(fitted on one machine, fitted on Spark), with vectors as they come."""
    parameters = {"precision": "float32"} | parameters
    frame = cluster.createDataFrame(table).repartition(4)
    return [
        small(**parameters).fit(table, schema=schema),
        on_spark.fit_on_spark(small(**parameters), frame, schema=schema),
    ]


def assert_same(one: Lookalike, other: Lookalike) -> None:
    for name in ("user_ids_", "item_ids_", "feature_names_", "n_users_", "n_items_", "n_interactions_"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.n_active_users_ == other.n_active_users_
    # Learned from identical input, so nothing is only close.
    assert one.embedding_.facts() == other.embedding_.facts()
    arrays = other.embedding_.arrays()
    for name, array in one.embedding_.arrays().items():
        np.testing.assert_array_equal(array, arrays[name], name)
    vectors = [np.asarray(model.space_.vectors) for model in (one, other)]
    assert vectors[0].dtype == vectors[1].dtype
    step, score = ROUNDING[vectors[0].dtype.name]
    assert np.abs(vectors[0].astype(np.float32) - vectors[1]).max() <= step
    np.testing.assert_allclose(one.space_.scale, other.space_.scale, rtol=1e-5)
    reports = [model.report_.to_json() for model in (one, other)]
    assert reports[1].pop("learned_share") == pytest.approx(reports[0].pop("learned_share"))
    assert reports[1] == reports[0]
    seed = one.user_ids_[::20]
    np.testing.assert_allclose(one.score(seed), other.score(seed), atol=score)


def test_users_items_sample_and_vectors_are_those_of_one_machine(cluster: SparkSession) -> None:
    table = tribes()[0]
    one, other = both(cluster, table, learning_interactions=12_000, probes=3)
    assert len(one.report_.probes) == 3
    assert_same(one, other)
    assert other.recall(one.user_ids_[:40]) == one.recall(one.user_ids_[:40])


def test_caps_keep_the_users_and_items_of_one_machine(cluster: SparkSession) -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(0, 900, 9_000) ** 2 // 900  # uneven, with many ties
    table = pa.table({"user_id": users, "item_id": rng.integers(0, 250, 9_000)})
    one, other = both(cluster, table, max_interactions=6_000, max_users=200, max_items=30, random_state=5)
    assert one.n_users_ <= 200 and one.n_items_ == 30
    assert_same(one, other)


def test_features_are_those_of_one_machine(cluster: SparkSession) -> None:
    rng = np.random.default_rng(1)
    table = tribes(users=600)[0]
    n = len(table)
    age = rng.normal(40, 10, n)
    age[rng.random(n) < 0.1], age[:5], age[5:9] = np.nan, np.inf, -np.inf
    columns = {
        "kind": pa.array([None if k == 0 else f"k{k}" for k in rng.integers(0, 5, n)]),
        "tags.all": pa.array([[f"t{t}" for t in rng.integers(0, 9, k)] if k else None for k in rng.integers(0, 3, n)]),
        "level": pa.array(np.where(rng.random(n) < 0.5, np.nan, rng.integers(0, 3, n) / 2)),
        "age": pa.array(age),
        "visits": pa.array(rng.integers(0, 50, n), mask=rng.random(n) < 0.3),
        "empty": pa.nulls(n, pa.float64()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    schema = Schema(categorical=("kind", "tags.all", "level"), numerical=("age", "visits", "empty"))
    one, other = both(cluster, table, schema, max_users=500)
    assert {name.split("=")[0].split(" ")[0] for name in one.feature_names_} == {*columns} - {"empty"}
    assert_same(one, other)


def test_ids_are_compared_by_their_text(cluster: SparkSession) -> None:
    rng = np.random.default_rng(2)
    odd = ["é", "e\u0301", "Z", "a", " a", "\U0001f600", "\uffff", "042", "42", "0", "x" * 300, "\x00", "a\x00"]
    users = [odd[k] if k < len(odd) else str(k) for k in rng.integers(0, 60, 900)]
    table = pa.table({"who.1": users, "what": pa.array(rng.integers(0, 40, 900), pa.float64())})
    one, other = both(cluster, table, Schema("who.1", "what"))
    assert "7" in other.item_ids_.to_pylist()
    assert_same(one, other)


def test_more_repeats_than_are_counted_are_those_of_one_machine(cluster: SparkSession) -> None:
    table = pa.concat_tables([noise(users=60), pa.table({"user_id": [3] * 70_000, "item_id": [5] * 70_000})])
    assert_same(*both(cluster, table))


def test_a_model_whose_vectors_stay_on_the_cluster_answers_and_is_saved_like_any(
    cluster: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "BACKGROUND", 250)  # less than the users, so that it must be drawn
    table = tribes(users=400)[0]
    one = small().fit(table)
    there = on_spark.fit_on_spark(small(), cluster.createDataFrame(table), collect=False)
    assert isinstance(there.space_, on_spark.ClusterSpace)
    assert_same(one, there)
    seed = one.user_ids_[5:45]
    np.testing.assert_allclose(there.rank(seed).scores, one.rank(seed).scores, atol=1e-4)
    np.testing.assert_allclose(there.relevance(seed, [50, 300]), one.relevance(seed, [50, 300]), atol=1e-6)
    there.save(tmp_path)
    assert_same(one, Lookalike.load(tmp_path))


def test_training_may_start_from_an_earlier_model_and_leaves_nothing_on_the_cluster(cluster: SparkSession) -> None:
    table, more = tribes(users=300)[0], tribes(users=400, items=330)[0]
    earlier = small().fit(table)
    one = small(precision="float16").fit(more, start=earlier)
    cached = cluster.sparkContext._jsc.getPersistentRDDs
    before = len(cached())
    assert_same(one, on_spark.fit_on_spark(small(precision="float16"), cluster.createDataFrame(more), start=earlier))
    assert len(cached()) == before


IDS = {"user_id": ["a", "b"], "item_id": ["x", "y"]}


@pytest.mark.parametrize(
    ("table", "schema"),
    [
        (pa.table({"user_id": ["a"]}), Schema()),
        (pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}), Schema()),
        (pa.table(IDS | {"user_id": ["a", None]}), Schema()),
        (pa.table(IDS | {"item_id": ["x", ""]}), Schema()),
        (pa.table(IDS | {"user_id": [1.0, float("nan")]}), Schema()),
        (pa.table(IDS | {"user_id": [1.0, 1.5]}), Schema()),
        (pa.table(IDS | {"user_id": [True, False]}), Schema()),
        (pa.table(IDS | {"f": [{"a": 1}, {"a": 2}]}), Schema(categorical=("f",))),
        (pa.table(IDS | {"f": ["1", "2"]}), Schema(numerical=("f",))),
    ],
)
def test_bad_input_is_refused_in_the_same_words(cluster: SparkSession, table: pa.Table, schema: Schema) -> None:
    with pytest.raises(InteractionsError) as here:
        small().fit(table, schema=schema)
    with pytest.raises(InteractionsError) as there:
        on_spark.fit_on_spark(small(), cluster.createDataFrame(table), schema=schema)
    assert str(there.value).replace("string", "large_string") == str(here.value).replace("string", "large_string")
