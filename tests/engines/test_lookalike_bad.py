"""Data that are odd, huge in one direction or tell nothing: the whole engine stays finite, calm and repeatable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.engines.populations import auc, noise, small
from whiteroom.engines.lookalike import InteractionsError, Lookalike, Ranking, Schema, SeedError

USERS = 600


def whole(table: pa.Table, tmp_path: Path, seed: object = None, schema: Schema | None = None) -> Ranking:
    """Fit, rank, save, load, rank again; the ranking is finite and the loaded model gives the same one."""
    model = small(probes=3).fit(table, schema=schema)
    seed = model.user_ids_[:30] if seed is None else seed
    ranking = model.rank(seed)
    assert ranking.scores.shape == (model.n_users_,)
    assert np.isfinite(ranking.scores).all()
    assert np.isfinite(model.space_.vectors).all()
    assert sorted(ranking.order) == list(range(model.n_users_))
    if ranking.matched > 1:
        assert 0 <= ranking.recall <= 1
        relevance = ranking.relevance(np.arange(1, ranking.available() + 1))
        assert (np.abs(relevance) <= 1).all() and (np.diff(relevance) <= 0).all()
    model.save(tmp_path / "model")
    again = Lookalike.load(tmp_path / "model")
    assert again.report_ == model.report_
    np.testing.assert_allclose(again.rank(seed).scores, ranking.scores, atol=1e-5)
    assert again.rank(seed).recall == pytest.approx(ranking.recall, abs=1e-6, nan_ok=True)
    return ranking


def says_nothing(ranking: Ranking) -> bool:
    """Nobody can be told apart: all scores are equal, and recall is that of chance."""
    return bool((ranking.scores == 0).all() and ranking.recall == pytest.approx(0.2))


EACH = np.repeat(np.arange(USERS), 5)


@pytest.mark.parametrize(
    "items",
    [
        np.arange(len(EACH)),
        np.zeros(len(EACH), int),
        np.tile(np.arange(5), USERS),
        np.random.default_rng(0).integers(0, 2**60, len(EACH)),
    ],
    ids=["all items unique", "one item for all", "the same five items for all", "as good as unique"],
)
def test_where_nobody_can_be_told_apart_all_scores_are_equal(items: np.ndarray, tmp_path: Path) -> None:
    assert says_nothing(whole(pa.table({"user_id": EACH, "item_id": items}), tmp_path))


def test_everybody_has_an_item_of_everybodys_and_one_of_their_own(tmp_path: Path) -> None:
    items = np.concatenate([np.zeros(USERS, int), 1 + np.arange(USERS)])
    assert says_nothing(whole(pa.table({"user_id": np.tile(np.arange(USERS), 2), "item_id": items}), tmp_path))


@pytest.mark.parametrize(
    ("users", "items"),
    [([1], [1]), ([1, 1, 1], [1, 2, 3]), ([1, 2], [1, 1]), ([1, 2], [1, 2]), ([1, 1, 2, 2], [1, 2, 2, 3])],
)
def test_a_population_of_one_or_two(users: list[int], items: list[int], tmp_path: Path) -> None:
    ranking = whole(pa.table({"user_id": users, "item_id": items}), tmp_path, [1])
    assert (ranking.matched, ranking.available()) == (1, len(set(users)) - 1)


@pytest.mark.parametrize("items", [1, 20_000], ids=["of one item", "of many items"])
def test_one_user_with_most_of_the_rows_takes_nothing_from_the_others(items: int, tmp_path: Path) -> None:
    # Two kinds of users who share no item, and the one who did a hundred times as much as all of them.
    rng = np.random.default_rng(0)
    kind = np.arange(USERS) % 2
    usual = pa.table({"user_id": EACH, "item_id": rng.integers(0, 50, len(EACH)) * 2 + kind[EACH]})
    rows = 300_000
    busy = pa.table({"user_id": np.full(rows, 10**6), "item_id": 7 + np.arange(rows) % items})
    model = small().fit(pa.concat_tables([usual, busy]))
    assert model.n_interactions_ == rows + len(EACH)
    seed = np.flatnonzero(kind == 0)[:30]
    ranking = whole(pa.concat_tables([usual, busy]), tmp_path, seed)
    ids = np.array([int(one) for one in model.user_ids_.to_pylist()])
    rest = np.flatnonzero(~np.isin(ids, seed) & (ids < USERS))
    assert auc(ranking.scores[rest], ids[rest] % 2 == 0) > 0.99


TEXTS = [
    " ", "\t", "\n", "a b", "a,b", '"', "'", "\\", "\0", "a\0b", "NULL", "null", "None", "nan", "NaN", "-0", "0", "00",
    "1e3", "1.0", "true", "é", "e\u0301", "ﬁ", "fi", "ß", "SS", "I", "\u0131", "\u0130", "漢字", "🙂", "👩‍👩‍👧",
    "\u200b", "\ufeff", "\u202e", "א", "../..", "s3://x/y", "<b>", "${x}", "%s",
    "x" * 100_000, "\U0010ffff", "\ue000", "\uffff",
]  # fmt: skip


def test_ids_hold_every_kind_of_text_and_none_is_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    users = TEXTS + [f"user {n}" for n in range(200)]
    table = pa.table(
        {
            "user_id": [user for user in users for _ in range(4)],
            "item_id": [TEXTS[n] for n in rng.integers(0, len(TEXTS), 4 * len(users))],
        }
    )
    ranking = whole(table, tmp_path, TEXTS)
    assert (ranking.matched, ranking.unmatched) == (len(TEXTS), 0)
    assert set(ranking.audience(len(TEXTS), include_seed=True).to_pylist()) == set(TEXTS)
    assert set(ranking.user_ids.to_pylist()) == set(users)
    near = ["É", "FI", "  ", "1.00", "01", "true ", "\ufeffa b"]
    with pytest.raises(SeedError, match="None of the 7 ids"):
        small().fit(table).rank(near)


def test_duplicated_rows_count_and_change_no_ranking_when_all_are_doubled(tmp_path: Path) -> None:
    table = noise(users=300)
    once, twice = small().fit(table), small().fit(pa.concat_tables([table, table]))
    assert twice.n_interactions_ == 2 * once.n_interactions_
    seed = list(range(40))
    ranking = whole(pa.concat_tables([table, table]), tmp_path, seed)
    # Counts enter by their logarithm, so that nearly the same is learned.
    assert np.corrcoef(ranking.scores, once.score(seed))[0, 1] > 0.9


def test_many_distinct_items_that_few_share_leave_what_is_shared(tmp_path: Path) -> None:
    # A hundred thousand items of one user each around ten items that tell two kinds of users apart.
    own = np.arange(100_000)
    users = np.concatenate([own % 2000, np.repeat(np.arange(2000), 3)])
    rng = np.random.default_rng(2)
    shared = 10**9 + 2 * rng.integers(0, 5, 6000) + np.repeat(np.arange(2000) % 2, 3)
    table = pa.table({"user_id": users, "item_id": np.concatenate([own, shared])})
    seed = np.arange(0, 100, 2)
    ranking = whole(table, tmp_path, seed)
    ids = np.array([int(one) for one in ranking.user_ids.to_pylist()])
    rest = ~np.isin(ids, seed)
    assert auc(ranking.scores[rest], ids[rest] % 2 == 0) > 0.95


def test_features_of_100000_values_that_nobody_shares_say_nothing(tmp_path: Path) -> None:
    values = np.random.default_rng(3).permutation(100_000).astype(str)
    users = np.repeat(np.arange(20_000), 5)
    table = pa.table({"user_id": users, "item_id": np.zeros(len(users), int), "kind": values})
    assert says_nothing(whole(table, tmp_path, schema=Schema(categorical=("kind",))))


def test_features_of_100000_values_cost_little_where_items_tell(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    users = np.repeat(np.arange(20_000), 5)
    items = rng.integers(0, 40, len(users)) * 2 + users % 2
    table = pa.table({"user_id": users, "item_id": items, "kind": rng.integers(0, 100_000, len(users)).astype(str)})
    ranking = whole(table, tmp_path, np.arange(0, 400, 2), Schema(categorical=("kind",)))
    ids = np.array([int(one) for one in ranking.user_ids.to_pylist()])
    assert auc(ranking.scores[ids >= 400], ids[ids >= 400] % 2 == 0) > 0.95


def test_constant_and_empty_features_say_nothing(tmp_path: Path) -> None:
    n = len(EACH)
    table = pa.table(
        {
            "user_id": EACH,
            "item_id": np.zeros(n, int),
            "same": ["x"] * n,
            "nothing": pa.nulls(n),
            "no_text": pa.nulls(n, pa.string()),
            "no_number": pa.nulls(n, pa.float64()),
            "not_a_number": np.full(n, np.nan),
            "one_number": np.full(n, 3.5),
            "endless": np.full(n, np.inf),
        }
    )
    schema = Schema(
        categorical=("same", "nothing", "no_text"), numerical=("no_number", "not_a_number", "one_number", "endless")
    )
    assert says_nothing(whole(table, tmp_path, schema=schema))


def test_a_seed_of_the_most_active_users_finds_the_active_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    activity = rng.geometric(0.05, 2000) + 1
    users = np.repeat(np.arange(2000), activity)
    table = pa.table({"user_id": users, "item_id": rng.integers(0, 500, len(users))})
    most = rng.permutation(np.argsort(-activity)[:100])
    ranking = whole(table, tmp_path, most[:50])
    ids = np.array([int(one) for one in ranking.user_ids.to_pylist()])
    rest = ~np.isin(ids, most[:50])
    assert auc(ranking.scores[rest], np.isin(ids, most[50:])[rest]) > 0.9
    assert ranking.recall > 0.9


def test_a_seed_of_everybody_and_of_everybody_but_one(tmp_path: Path) -> None:
    table = noise(users=300)
    everybody = whole(table, tmp_path / "all", list(range(300)))
    assert says_nothing(everybody)
    assert everybody.available() == 0
    # Of the one who is left, the seed's own mean tells only that it is not there.
    assert whole(table, tmp_path / "but one", list(range(299))).available() == 1


def test_a_seed_of_nobody_here_is_refused() -> None:
    with pytest.raises(SeedError, match="None of the 500 ids"):
        small().fit(noise(users=50)).rank([f"elsewhere {n}" for n in range(500)])


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("bad", [None, "", float("nan")])
def test_an_id_that_is_none_is_refused_by_its_column(column: str, bad: object) -> None:
    columns: dict[str, list[object]] = {"user_id": ["a", "b"], "item_id": ["x", "y"]}
    columns[column] = [1.0, bad] if isinstance(bad, float) else [bad, "b"]
    with pytest.raises(InteractionsError, match=column):
        small().fit(pa.table(columns))


def test_a_precision_that_is_none_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, float16, int8, not 'float64'"):
        Lookalike(precision="float64").fit(iter([]))
