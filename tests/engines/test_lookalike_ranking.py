"""The engine finds known truths, says how well it does, and gives the same answer every time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.engines.populations import auc, names, noise, small, tribes
from whiteroom.engines.lookalike import Lookalike, SeedError
from whiteroom.engines.lookalike.metrics import hidden_positions, relevance_curve, top_share


@pytest.fixture(scope="module")
def known() -> tuple[Lookalike, np.ndarray]:
    """A fitted model, and the tribe of each of its rows."""
    table, tribe = tribes()
    model = small().fit(table)
    return model, tribe[[int(one[1:]) for one in model.user_ids_.to_pylist()]]


def seed_of(model: Lookalike, rows: np.ndarray, size: int, state: int = 1) -> list[str]:
    chosen = np.random.default_rng(state).choice(rows, size, replace=False)
    return model.user_ids_.take(pa.array(chosen)).to_pylist()


def test_the_users_of_the_seeds_tribe_come_first(known: tuple[Lookalike, np.ndarray]) -> None:
    model, tribe = known
    truth = tribe == 2
    seed = seed_of(model, np.flatnonzero(truth), 40)
    scores = model.score(seed)
    assert scores.dtype == np.float32
    assert scores.shape == (model.n_users_,)
    rest = ~np.isin(model.user_ids_.to_pylist(), seed)
    assert auc(scores[rest], truth[rest]) > 0.97
    found = model.expand(seed, int((truth & rest).sum()))
    assert np.isin(found.to_pylist(), model.user_ids_.filter(pa.array(truth)).to_pylist()).mean() > 0.8


def test_recall_is_what_the_hidden_truth_gives_and_a_random_seed_gets_the_bins_share(
    known: tuple[Lookalike, np.ndarray],
) -> None:
    model, tribe = known
    truth = np.flatnonzero(tribe == 3)
    ranking = model.rank(seed_of(model, truth, 60))
    ranked = ranking.order[ranking.matched :]
    true_recall = np.isin(ranked[: len(ranked) // 5], truth).sum() / np.isin(ranked, truth).sum()
    assert true_recall > 0.85
    assert ranking.recall == pytest.approx(true_recall, abs=0.12)
    random = [model.recall(seed_of(model, np.arange(model.n_users_), 100, state)) for state in range(10)]
    assert np.mean(random) == pytest.approx(0.2, abs=0.04)
    assert model.recall(seed_of(model, np.arange(model.n_users_), 100), top=1.0) == 1.0


def test_relevance_falls_with_size_and_crosses_zero_where_the_seeds_kind_ends(
    known: tuple[Lookalike, np.ndarray],
) -> None:
    model, tribe = known
    truth = np.flatnonzero(tribe == 1)
    ranking = model.rank(seed_of(model, truth, 80))
    sizes = np.arange(1, ranking.available() + 1)
    relevance = ranking.relevance(sizes)
    assert (np.diff(relevance) <= 0).all()
    assert relevance[0] > 0.5
    assert relevance[-1] < -0.5
    # Left of the crossing live most of the truth that is left, right of it hardly anybody.
    crossing = int(np.argmax(relevance < 0))
    others = ranking.order[ranking.matched :]
    assert np.isin(others[:crossing], truth).sum() > 0.8 * np.isin(others, truth).sum()
    assert crossing < 3 * (len(truth) - 80)


def test_relevance_of_random_seeds_is_about_zero(known: tuple[Lookalike, np.ndarray]) -> None:
    model, _ = known
    sizes = [model.n_users_ * percent // 100 for percent in (5, 10, 20, 50)]
    drawn = [model.relevance(seed_of(model, np.arange(model.n_users_), 200, s), sizes) for s in range(10)]
    assert np.abs(np.mean(drawn, axis=0)).max() < 0.15


def test_relevance_is_the_density_ratio_for_positions_of_known_density() -> None:
    # Two thirds of the seed in the first tenth of the ranking, the rest even over all of it.
    rng = np.random.default_rng(0)
    positions = np.concatenate([rng.random(4000) * 0.1, rng.random(2000)])
    curve = relevance_curve(positions)
    density_inside, density_outside = 2 / 3 / 0.1 + 1 / 3, 1 / 3
    assert curve.at(np.array([0.02, 0.05])) == pytest.approx((density_inside - 1) / (density_inside + 1), abs=0.03)
    assert curve.at(np.array([0.5])) == pytest.approx((density_outside - 1) / (density_outside + 1), abs=0.05)


def test_ties_count_by_their_chance() -> None:
    scores = np.zeros(100)
    first, last, n = hidden_positions(scores, fitted=np.arange(10), hidden=np.array([10, 11]))
    assert (n, first.tolist(), last.tolist()) == (90, [0, 0], [90, 90])
    assert top_share(first, last, n, 0.2) == pytest.approx([0.2, 0.2])


def test_the_seed_is_left_out_or_comes_first(known: tuple[Lookalike, np.ndarray]) -> None:
    model, tribe = known
    seed = seed_of(model, np.flatnonzero(tribe == 0), 30)
    ranking = model.rank(seed)
    assert ranking.matched == 30
    assert set(ranking.audience(30, include_seed=True).to_pylist()) == set(seed)
    without = ranking.audience(50).to_pylist()
    assert not set(without) & set(seed)
    assert ranking.audience(80, include_seed=True).to_pylist()[30:] == without
    assert model.expand(seed, 50).to_pylist() == without
    assert ranking.available() == model.n_users_ - 30
    assert sorted(ranking.order) == list(range(model.n_users_))
    assert ranking.relevance([40], include_seed=True) == pytest.approx(ranking.relevance([10]))
    assert (np.diff(ranking.scores[ranking.order[30:]]) <= 0).all()
    with pytest.raises(ValueError, match="1 to 1170 users"):
        ranking.audience(1171)
    with pytest.raises(ValueError, match="1 to 1200 users"):
        ranking.relevance([0], include_seed=True)


def test_neither_row_order_nor_threads_nor_seed_order_change_a_bit() -> None:
    table, tribe = tribes(users=600)
    seed = names(np.flatnonzero(tribe == 0)[:30])
    shuffled = table.take(pa.array(np.random.default_rng(5).permutation(len(table))))
    one = Lookalike(threads=1).fit(table)
    other = Lookalike(threads=4).fit(iter(shuffled.to_batches(max_chunksize=997)))
    np.testing.assert_array_equal(one.space_.vectors, other.space_.vectors)
    ranking, again = one.rank(seed), other.rank(list(reversed(seed)))
    np.testing.assert_array_equal(ranking.scores, again.scores)
    np.testing.assert_array_equal(ranking.order, again.order)
    assert ranking.recall == again.recall
    np.testing.assert_array_equal(ranking.relevance([1, 50, 500]), again.relevance([1, 50, 500]))
    assert (Lookalike(threads=1, random_state=1).fit(table).score(seed) != ranking.scores).any()


def test_ids_match_by_their_text_and_once() -> None:
    model = small().fit(noise())
    rows, unmatched = model.match(["42", 42, np.int64(42), "042", "nobody", 7])
    assert model.user_ids_.take(pa.array(rows)).to_pylist() == ["42", "7"]
    assert unmatched == 2
    assert model.match(pa.array([7, 42, 7]))[0].tolist() == rows.tolist()
    assert model.match(pa.chunked_array([["7"], ["42"]]))[0].tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ([], "empty"),
        (["x", "y"], "None of the 2 ids"),
        ("42", "not one string"),
        ([None], "no id"),
        ([1.5], "no id"),
        ([float("nan")], "no id"),
        ([True], "no id"),
        ([["1"]], "no id"),
        (pa.array(["1", None]), "no id"),
        (["\ud800"], "no id"),
    ],
)
def test_an_unusable_seed_is_refused_with_a_reason(seed: object, message: str) -> None:
    model = small().fit(noise(users=50))
    with pytest.raises(SeedError, match=message):
        model.rank(seed)


def test_a_seed_of_everybody_leaves_nobody_and_says_nothing(known: tuple[Lookalike, np.ndarray]) -> None:
    model, _ = known
    ranking = model.rank(model.user_ids_)
    assert ranking.available() == 0
    assert (ranking.scores == 0).all()
    # Of a hidden fifth, alone in its pool, a fifth is in the top fifth: chance.
    assert ranking.recall == pytest.approx(0.2, abs=0.02)
    assert ranking.relevance([100, 1200], include_seed=True) == pytest.approx([0, 0], abs=0.25)


def test_one_matched_user_ranks_but_measures_nothing(known: tuple[Lookalike, np.ndarray]) -> None:
    model, _ = known
    ranking = model.rank(["u5"])
    assert ranking.order[0] == model.match(["u5"])[0][0]
    assert np.isnan(ranking.recall)
    with pytest.raises(ValueError, match="at least two"):
        ranking.relevance([10])
