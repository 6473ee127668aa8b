"""What the engine reads, what it refuses, and populations with nothing to learn from."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.engines.populations import noise, small, tribes
from whiteroom.engines.lookalike import InteractionsError, Lookalike, LookalikeError, Schema
from whiteroom.engines.lookalike.interactions import Interactions, read_interactions
from whiteroom.engines.lookalike.matrix import build_population
from whiteroom.engines.lookalike.workspace import Workspace


def read(source: Any, schema: Schema | None = None) -> Interactions:
    with Workspace() as workspace:
        return read_interactions(source, schema or Schema(), workspace=workspace)


def pairs(data: Interactions) -> list[tuple[str, str]]:
    users, items = data.user_ids.take(pa.array(data.users)), data.item_ids.take(pa.array(data.items))
    return list(zip(users.to_pylist(), items.to_pylist(), strict=True))


def test_every_kind_of_input_gives_the_same_interactions(tmp_path: Path) -> None:
    table, _ = tribes(users=200)
    pq.write_table(table, tmp_path / "all.parquet", compression="zstd")
    pa.csv.write_csv(table, tmp_path / "all.csv")
    halves = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for half, path in enumerate(halves):
        pq.write_table(table.slice(half * 1500, 1500), path)
    encoded = pa.table({"user_id": table["user_id"].dictionary_encode(), "item_id": table["item_id"]})
    inputs = [
        table,
        table.combine_chunks().to_batches()[0],
        iter(table.to_batches(max_chunksize=100)),
        pa.RecordBatchReader.from_batches(table.schema, table.to_batches()),
        pa.dataset.dataset(tmp_path / "all.parquet"),
        table.to_pandas(),
        tmp_path / "all.parquet",
        str(tmp_path / "all.csv"),
        halves,
        encoded,
    ]
    expected = list(zip(table["user_id"].to_pylist(), map(str, table["item_id"].to_pylist()), strict=True))
    for one in inputs:
        assert pairs(read(one)) == expected


def test_csv_ids_keep_their_leading_zeros(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user_id,item_id\n007,01\n008,01\n007,02\n")
    assert pairs(read(tmp_path / "x.csv")) == [("007", "01"), ("008", "01"), ("007", "02")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": [], "item_id": []}, "no rows"),
        ({"user": ["a"], "item_id": ["b"]}, "no column user_id; they have user, item_id"),
        ({"user_id": ["a", None], "item_id": ["b", "c"]}, "user_id holds a null"),
        ({"user_id": ["a", ""], "item_id": ["b", "c"]}, "user_id holds an empty id"),
        ({"user_id": ["a", "b"], "item_id": [1, None]}, "item_id holds a null"),
        ({"user_id": [1.0, float("nan")], "item_id": [1, 2]}, "NaN or infinity"),
        ({"user_id": [1.5, 2.0], "item_id": [1, 2]}, "holds something that is no id"),
        ({"user_id": [b"\xff\xfe"], "item_id": [1]}, "holds something that is no id"),
        ({"user_id": [True, False], "item_id": [1, 2]}, "ids are strings or integers"),
        ({"user_id": [[1], [2]], "item_id": [1, 2]}, "ids are strings or integers"),
    ],
)
def test_unusable_columns_are_refused_with_a_reason(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(InteractionsError, match=message):
        read(pa.table(columns))


def test_files_that_are_not_there_or_not_whole_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(noise(), whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-100])
    for path in (tmp_path / "none.parquet", cut):
        with pytest.raises(InteractionsError, match="Cannot read"):
            read(path)
    with pytest.raises(InteractionsError, match="from a int"):
        read(5)
    with pytest.raises(InteractionsError, match="from a dict"):
        read([{"user_id": 1, "item_id": 2}])


def test_a_sources_own_failures_pass_through_unchanged() -> None:
    def breaking() -> Iterator[pa.RecordBatch]:
        yield noise().combine_chunks().to_batches()[0]
        raise ConnectionResetError("the bucket went away")

    with pytest.raises(ConnectionResetError):
        read(breaking())


def test_batches_that_disagree_are_refused() -> None:
    batches = [
        pa.record_batch({"user_id": [1], "item_id": ["a"]}),
        pa.record_batch({"user_id": ["x"], "item_id": ["a"]}),
    ]
    with pytest.raises(InteractionsError, match="Cannot read"):
        read(batches)


def test_dictionaries_may_differ_between_batches() -> None:
    def batch(users: list[str]) -> pa.RecordBatch:
        return pa.record_batch({"user_id": pa.array(users).dictionary_encode(), "item_id": [1] * len(users)})

    data = read([batch(["b", "a"]), batch(["c", "a"])])
    assert pairs(data) == [("b", "1"), ("a", "1"), ("c", "1"), ("a", "1")]


def test_floats_that_are_whole_numbers_are_ids() -> None:
    frame = pd.DataFrame({"user_id": [1.0, 2.0, 2.0], "item_id": ["a", "a", "b"]})
    assert pairs(read(frame)) == [("1", "a"), ("2", "a"), ("2", "b")]


def test_strange_texts_are_ids_like_any_other() -> None:
    strange = ["a b", "ä", "a\u0308", "\U0001f63a", "'; drop", "null", "NaN", "-0", "0", "\n", "x" * 5000]
    table = pa.table({"user_id": strange * 2, "item_id": [1, 2] * len(strange)})
    model = small().fit(table)
    assert set(model.user_ids_.to_pylist()) == set(strange)
    assert model.match(strange)[1] == 0


def test_when_all_items_are_unique_the_ranking_is_chance() -> None:
    model = small().fit(pa.table({"user_id": np.arange(900), "item_id": np.arange(900)}))
    ranking = model.rank(range(0, 900, 3))
    assert np.isfinite(ranking.scores).all()
    assert ranking.recall == pytest.approx(0.2, abs=0.06)
    assert np.abs(ranking.relevance([100, 300])).max() < 0.3


def test_when_all_users_have_one_item_all_scores_are_equal_and_the_order_is_chance() -> None:
    model = small().fit(pa.table({"user_id": np.arange(900), "item_id": np.zeros(900, int)}))
    ranking = model.rank(range(90))
    assert np.ptp(ranking.scores) == 0
    assert ranking.recall == pytest.approx(0.2, abs=1e-3)
    # Equal users in the order of their ids would be no sample of them.
    best = np.array(ranking.audience(200).to_pylist(), dtype=int)
    assert 400 < best.mean() < 590


def test_two_kinds_of_users_are_told_apart_completely() -> None:
    model = small().fit(pa.table({"user_id": np.arange(60), "item_id": np.arange(60) % 2}))
    score = dict(zip(model.user_ids_.to_pylist(), model.score(range(0, 20, 2)), strict=True))
    assert min(score[str(u)] for u in range(0, 60, 2)) > max(score[str(u)] for u in range(1, 60, 2))


def test_one_user_alone_is_a_population() -> None:
    model = small().fit(pa.table({"user_id": ["only"], "item_id": ["x"]}))
    ranking = model.rank(["only"])
    assert ranking.scores.tolist() == [0]
    assert ranking.audience(1, include_seed=True).to_pylist() == ["only"]
    assert ranking.available() == 0


def test_one_user_with_very_many_rows_needs_little_memory() -> None:
    batch = pa.record_batch({"user_id": ["heavy"] * 50_000 + ["light"], "item_id": ["x"] * 50_000 + ["y"]})
    caps: dict[str, Any] = {"max_interactions": None, "max_users": None, "max_items": None}
    tracemalloc.start()
    with Workspace() as workspace:
        data = read_interactions((batch for _ in range(20)), Schema(), workspace=workspace)
        population = build_population(data, workspace=workspace, random_state=0, **caps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert population.n_interactions == 1_000_020
    assert peak < 100e6


def test_progress_rises_to_one_and_says_what_is_done() -> None:
    heard: list[tuple[float, str]] = []
    small().fit(noise(), progress=lambda share, text: heard.append((share, text)))
    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert heard[0][1] == "8,000 interactions read"


def test_an_unfitted_model_says_so(tmp_path: Path) -> None:
    for use in (lambda: Lookalike().score(["a"]), lambda: Lookalike().save(tmp_path)):
        with pytest.raises(LookalikeError, match="not fitted"):
            use()


def test_columns_are_found_by_the_schema() -> None:
    table = pa.table({"who": [1, 2], "what": ["x", "y"], "else": [None, None]})
    assert pairs(read(table, Schema(user_id="who", item_id="what"))) == [("1", "x"), ("2", "y")]
