"""Features help where they carry the signal and do nothing where they cannot."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.engines.populations import auc, noise, small
from whiteroom.engines.lookalike import InteractionsError, Lookalike, Schema
from whiteroom.engines.lookalike.features import MAX_VALUES, feature_columns
from whiteroom.engines.lookalike.interactions import read_interactions
from whiteroom.engines.lookalike.workspace import Workspace


def audience_auc(model: Lookalike, truth: np.ndarray, seeds: int = 40) -> float:
    """AUC for the rest of the users in `truth` (by number) from a seed of some of them."""
    ids = np.array(model.user_ids_.to_pylist(), dtype=np.int64)
    seed = np.random.default_rng(3).choice(np.flatnonzero(truth), seeds, replace=False)
    rest = ~np.isin(ids, seed)
    return auc(model.score(seed)[rest], truth[ids][rest])


def test_a_category_that_alone_tells_the_audience_finds_it() -> None:
    kind = np.random.default_rng(0).integers(0, 8, 800)
    table = noise(kind=kind.astype(str))
    assert audience_auc(small().fit(table), kind == 3) < 0.6
    assert audience_auc(small().fit(table, schema=Schema(categorical=("kind",))), kind == 3) > 0.9


def test_one_value_of_a_list_that_alone_tells_the_audience_finds_it() -> None:
    rng = np.random.default_rng(1)
    lists = [[f"v{v}" for v in rng.choice(20, rng.integers(0, 4), replace=False)] for _ in range(800)]
    truth = np.array(["v5" in one for one in lists])
    table = noise(tags=np.array(lists, dtype=object))
    assert audience_auc(small().fit(table), truth) < 0.6
    assert audience_auc(small().fit(table, schema=Schema(categorical=("tags",))), truth) > 0.85


def test_a_number_that_alone_tells_the_audience_finds_it() -> None:
    size = np.random.default_rng(2).lognormal(size=800)
    table = noise(size=size)
    truth = size > np.quantile(size, 0.8)
    assert audience_auc(small().fit(table), truth) < 0.6
    assert audience_auc(small().fit(table, schema=Schema(numerical=("size",))), truth) > 0.9


def test_being_without_a_number_can_be_the_signal() -> None:
    value = np.random.default_rng(4).normal(size=800)
    value[np.random.default_rng(5).random(800) < 0.2] = np.nan
    model = small().fit(noise(value=value), schema=Schema(numerical=("value",)))
    assert "value missing" in model.feature_names_
    assert audience_auc(model, np.isnan(value)) > 0.9


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        (np.full(800, "same"), Schema(categorical=("f",))),
        (np.full(800, 3.5), Schema(numerical=("f",))),
        (np.full(800, None), Schema(categorical=("f",))),
        (np.full(800, np.nan), Schema(numerical=("f",))),
        (np.full(800, np.nan), Schema(categorical=("f",))),
        (np.full(800, np.inf), Schema(numerical=("f",))),
    ],
)
def test_a_constant_or_empty_feature_changes_nothing(values: np.ndarray, schema: Schema) -> None:
    table = noise(f=values)
    with_feature = small().fit(table, schema=schema)
    assert with_feature.feature_names_ == []
    seed = list(range(30))
    np.testing.assert_array_equal(with_feature.score(seed), small().fit(table).score(seed))


def test_a_hundred_thousand_categories_share_one_column_beyond_the_limit() -> None:
    users = 101_000
    kind = np.concatenate([np.repeat(np.arange(500), 2), np.arange(500, 500 + users - 1000)])
    table = pa.table({"user_id": np.arange(users), "item_id": np.arange(users) % 50, "kind": kind})
    model = small().fit(table, schema=Schema(categorical=("kind",)))
    assert len(model.feature_names_) == MAX_VALUES + 1
    assert "kind=<other>" in model.feature_names_
    assert {f"kind={k}" for k in range(500)} <= set(model.feature_names_)
    assert np.isfinite(model.score(range(100))).all()


def test_a_users_values_are_gathered_over_its_rows_and_a_number_is_the_mean() -> None:
    table = pa.table(
        {
            "user_id": ["a", "a", "b", "c"],
            "item_id": ["x", "y", "x", "y"],
            "color": ["red", "blue", "red", None],
            "flag": [True, None, False, False],
            "age": [10.0, 30.0, 21.0, 19.0],
        }
    )
    with Workspace() as workspace:
        data = read_interactions(table, Schema(categorical=("color", "flag"), numerical=("age",)), workspace=workspace)
        columns, names = feature_columns(data, np.arange(3))
    held = dict(zip(names, columns.toarray().T.tolist(), strict=True))
    # idf-weighted and of unit length within a feature: blue (1 of 3 users) weighs more than red (2 of 3).
    red, blue = np.log1p(3 / 2), np.log1p(3)
    assert held["color=red"] == pytest.approx([red / np.hypot(red, blue), 1, 0])
    assert held["color=blue"] == pytest.approx([blue / np.hypot(red, blue), 0, 0])
    assert held["flag=true"] == [1, 0, 0]
    assert held["flag=false"] == [0, 1, 1]
    ages = np.array([v for k, v in held.items() if k.startswith("age in")])
    assert ages.sum(axis=0).tolist() == [1, 1, 1]
    assert len(ages) == 3


def test_features_neither_depend_on_row_order_nor_on_batches() -> None:
    rng = np.random.default_rng(6)
    tags = np.array(
        [[f"v{v}" for v in rng.choice(9, rng.integers(0, 4), replace=False)] for _ in range(800)], dtype=object
    )
    table = noise(kind=rng.integers(0, 5, 800), size=rng.normal(size=800), tags=tags)
    table = table.set_column(3, "size", pa.array(rng.normal(size=len(table))))
    schema = Schema(categorical=("kind", "tags"), numerical=("size",))
    shuffled = table.take(pa.array(rng.permutation(len(table)))).to_batches(max_chunksize=333)
    one, other = small().fit(table, schema=schema), small().fit(shuffled, schema=schema)
    np.testing.assert_array_equal(one.score(range(40)), other.score(range(40)))


@pytest.mark.parametrize(
    ("values", "schema", "message"),
    [
        (np.array(["1", "2"] * 400), Schema(numerical=("f",)), "integer or float"),
        (np.array(["2026-01-01"] * 800, dtype="datetime64[s]"), Schema(categorical=("f",)), "a categorical feature is"),
        (np.zeros(800), Schema(categorical=("g",)), "no column g"),
    ],
)
def test_a_feature_of_the_wrong_type_is_refused(values: np.ndarray, schema: Schema, message: str) -> None:
    with pytest.raises(InteractionsError, match=message):
        small().fit(noise(f=values), schema=schema)
