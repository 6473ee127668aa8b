"""What the engine reads, what it refuses, and populations with nothing to learn from."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.engines.populations import names, noise, small, tribes
from whiteroom.engines.lookalike import InteractionsError, Lookalike, LookalikeError, Schema


def test_every_kind_of_input_gives_the_same_model(tmp_path: Path) -> None:
    table, tribe = tribes(users=200)
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
    seed = names(np.flatnonzero(tribe == 0)[:10])
    scores = [small(iterations=2).fit(one).score(seed) for one in inputs]
    for other in scores[1:]:
        np.testing.assert_array_equal(scores[0], other)


def test_csv_ids_keep_their_leading_zeros(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user_id,item_id\n007,01\n008,01\n007,02\n")
    model = small(iterations=1).fit(tmp_path / "x.csv")
    assert model.user_ids_.to_pylist() == ["007", "008"]
    assert model.item_ids_.to_pylist() == ["01", "02"]


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
        small().fit(pa.table(columns))


def test_files_that_are_not_there_or_not_whole_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(noise(), whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-100])
    for path in (tmp_path / "none.parquet", cut):
        with pytest.raises(InteractionsError, match="Cannot read"):
            small().fit(path)
    with pytest.raises(InteractionsError, match="from a int"):
        small().fit(5)
    with pytest.raises(InteractionsError, match="from a dict"):
        small().fit([{"user_id": 1, "item_id": 2}])


def test_a_sources_own_failures_pass_through_unchanged() -> None:
    def breaking() -> Iterator[pa.RecordBatch]:
        yield noise().combine_chunks().to_batches()[0]
        raise ConnectionResetError("the bucket went away")

    with pytest.raises(ConnectionResetError):
        small().fit(breaking())


def test_batches_that_disagree_are_refused() -> None:
    batches = [
        pa.record_batch({"user_id": [1], "item_id": ["a"]}),
        pa.record_batch({"user_id": ["x"], "item_id": ["a"]}),
    ]
    with pytest.raises(InteractionsError, match="Cannot read"):
        small().fit(batches)


def test_dictionaries_may_differ_between_batches() -> None:
    def batch(users: list[str]) -> pa.RecordBatch:
        return pa.record_batch({"user_id": pa.array(users).dictionary_encode(), "item_id": [1] * len(users)})

    model = small(iterations=1).fit([batch(["b", "a"]), batch(["c", "a"])])
    assert dict(zip(model.user_ids_.to_pylist(), model.evidence_.X.toarray().ravel(), strict=True)) == pytest.approx(
        {"a": 1 + np.log(2), "b": 1, "c": 1}
    )


def test_floats_that_are_whole_numbers_are_ids() -> None:
    frame = pd.DataFrame({"user_id": [1.0, 2.0, 2.0], "item_id": ["a", "a", "b"]})
    assert small(iterations=1).fit(frame).user_ids_.to_pylist() == ["1", "2"]


def test_strange_texts_are_ids_like_any_other() -> None:
    strange = ["a b", "ä", "a\u0308", "\U0001f63a", "'; drop", "null", "NaN", "-0", "0", "\n", "x" * 5000]
    table = pa.table({"user_id": strange * 2, "item_id": [1, 2] * len(strange)})
    model = small(iterations=1).fit(table)
    assert set(model.user_ids_.to_pylist()) == set(strange)
    assert model.match(strange)[1] == 0


def test_repeats_count_as_one_plus_log() -> None:
    table = pa.table({"user_id": ["a"] * 5 + ["b"], "item_id": ["x", "x", "x", "y", "x", "x"]})
    model = small(iterations=1).fit(table)
    assert model.n_interactions_ == 6
    assert model.n_active_users_ == 1
    np.testing.assert_allclose(model.evidence_.X.toarray(), [[1 + np.log(4), 1], [1, 0]], rtol=1e-6)


def test_caps_keep_whole_users_the_busiest_and_the_most_popular() -> None:
    table, _ = tribes(users=400)
    busy = pa.table({"user_id": ["busy"] * 60, "item_id": np.arange(60)})
    table = pa.concat_tables([table, busy])
    everything = small(iterations=1).fit(table)
    sampled = small(iterations=1, max_interactions=3000).fit(table)
    assert 2900 < sampled.n_interactions_ <= 3000
    of_all = dict(zip(everything.user_ids_.to_pylist(), np.diff(everything.evidence_.X.indptr), strict=True))
    of_sample = zip(sampled.user_ids_.to_pylist(), np.diff(sampled.evidence_.X.indptr), strict=True)
    assert all(of_all[user] == items for user, items in of_sample)
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))
    assert small(iterations=1, max_interactions=3000).fit(shuffled).user_ids_.equals(sampled.user_ids_)
    other = small(iterations=1, max_interactions=3000, random_state=1).fit(table)
    assert not other.user_ids_.equals(sampled.user_ids_)

    fewer = small(iterations=1, max_users=100).fit(table)
    assert fewer.n_users_ == 100
    assert "busy" in fewer.user_ids_.to_pylist()
    popularity = np.bincount(everything.evidence_.X.indices)
    popular = small(iterations=1, max_items=50).fit(table)
    kept = np.isin(everything.item_ids_.to_pylist(), popular.item_ids_.to_pylist())
    assert popular.n_items_ == 50
    assert popularity[kept].min() >= popularity[~kept].max()


def test_users_left_without_an_item_disappear() -> None:
    table = pa.table({"user_id": ["a", "b", "c", "rare"], "item_id": ["x", "x", "x", "y"]})
    model = small(iterations=1, max_items=1).fit(table)
    assert model.user_ids_.to_pylist() == ["a", "b", "c"]
    assert model.n_interactions_ == 3


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
    tracemalloc.start()
    model = small(iterations=1).fit(batch for _ in range(20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.n_interactions_ == 1_000_020
    assert peak < 100e6


def test_progress_rises_to_one_and_says_what_is_done() -> None:
    heard: list[tuple[float, str]] = []
    small().fit(noise(), progress=lambda share, text: heard.append((share, text)))
    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert "iteration 5 of 5" in heard[-2][1]


def test_an_unfitted_model_says_so(tmp_path: Path) -> None:
    for use in (lambda: Lookalike().score(["a"]), lambda: Lookalike().save(tmp_path)):
        with pytest.raises(LookalikeError, match="not fitted"):
            use()


def test_columns_are_found_by_the_schema() -> None:
    table = pa.table({"who": [1, 2], "what": ["x", "y"], "else": [None, None]})
    model = small(iterations=1).fit(table, schema=Schema(user_id="who", item_id="what"))
    assert model.user_ids_.to_pylist() == ["1", "2"]
