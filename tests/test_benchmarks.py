"""The benchmarks' own arithmetic, and that every peer does what it is compared for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from benchmarks import laleval
from benchmarks.lookalike import bootstrap, interval
from benchmarks.peers import METHODS
from benchmarks.population import Population
from benchmarks.scale import fitted_power
from tests.population import population

LEARNS_NOTHING_OF_THE_SEED = ("random", "activity")


@pytest.fixture(scope="module")
def planted() -> SimpleNamespace:
    """A matrix and two jobs of which every fifth user is the truth."""
    made = population(users=800)
    users = np.unique(made.table["user_id"].to_numpy(), return_inverse=True)[1]
    items = np.unique(made.table["item_id"].to_numpy(), return_inverse=True)[1]
    matrix = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    truth = np.arange(0, 800, 5)
    jobs = [laleval.Job("fans", truth[:60], truth), laleval.Job("fans", truth[40:], truth)]
    return SimpleNamespace(matrix=matrix, jobs=jobs)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "whiteroom"])
def test_a_peer_finds_the_planted_audience_and_scores_alike_alone_and_together(
    name: str, planted: SimpleNamespace
) -> None:
    method = METHODS[name]().fit(planted.matrix)
    seeds = [job.seed for job in planted.jobs]
    together = method.scores(seeds)
    alone = np.concatenate([method.scores([seed]) for seed in seeds], axis=1)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    found = laleval.quality(together[:, 0], planted.jobs[0])
    if name in LEARNS_NOTHING_OF_THE_SEED:
        assert 0.1 < found.recall < 0.35
    else:
        assert found.recall > 0.8 and found.auc > 0.9 and found.lift > 3


def test_quality_of_a_worked_ranking() -> None:
    # 100 users outside the seed; of the 4 to find, two lead, one is 20th and one is last.
    truth = np.array([100, 0, 1, 19, 99])
    found = laleval.quality(-np.arange(101.0), laleval.Job("worked", np.array([100]), truth))
    assert found.recall == 3 / 4
    assert found.lift == 1 / (4 / 100)
    lower = (96 + 96 + (96 - 17) + 0) / 4
    assert found.auc == pytest.approx(lower / 96)


def test_the_bootstrap_keeps_an_audience_together_and_pairs_the_methods() -> None:
    rng = np.random.default_rng(1)
    audiences = np.repeat([f"audience-{i}" for i in range(40)], 5)
    blocks = np.repeat(["one", "two"], 100)
    level = np.repeat(rng.random(40), 5)
    draws = bootstrap(np.stack([level, level - 0.01], axis=1), blocks, audiences)
    assert draws[:, 0].mean() == pytest.approx(level.mean(), abs=0.01)
    # The five jobs of an audience say one thing: the error is that of 40 figures, not of 200.
    standard_error = np.sqrt(np.mean([level[blocks == b][::5].var() / 20 for b in ("one", "two")]) / 2)
    assert draws[:, 0].std() == pytest.approx(standard_error, rel=0.1)
    assert interval(draws[:, 1] - draws[:, 0]) == pytest.approx([-0.01, -0.01])


def test_a_power_law_is_fitted() -> None:
    fit = fitted_power([1, 10, 100, 1000], [3 * n**1.1 for n in (1, 10, 100, 1000)])
    assert fit["exponent"] == pytest.approx(1.1) and fit["residual"] == pytest.approx(0, abs=1e-9)


def test_the_large_population_is_the_same_each_time_and_has_its_audiences(tmp_path: Path) -> None:
    small = Population(users=3000, items=500, interactions=100_000)
    first, again = (small.write(tmp_path / name) for name in ("first", "again"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    table = pq.read_table(first)
    assert abs(len(table) - 100_000) < 2000
    assert set(table["user_id"].to_pylist()) == set(small.user_ids.to_pylist())
    codes = {user: number for number, user in enumerate(small.user_ids.to_pylist())}
    users = np.array([codes[user] for user in table["user_id"].to_pylist()])
    items = np.unique(table["item_id"].to_numpy(), return_inverse=True)[1]
    matrix = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)))
    ridge = METHODS["sparse ridge on TF-IDF rows"]().fit(matrix)
    truths = small.audiences
    jobs = [laleval.Job(str(i), truth[:30], truth) for i, truth in enumerate(truths)]
    scores = ridge.scores([job.seed for job in jobs])
    assert np.mean([laleval.quality(scores[:, j], job).auc for j, job in enumerate(jobs)]) > 0.6


def test_pictures_are_drawn_from_a_report(tmp_path: Path) -> None:
    from benchmarks import pictures

    def method(recall: float, seconds: float) -> dict[str, object]:
        sizes = {size: {"recall": recall, "auc": 0.8, "lift": 9.0} for size in ("25", "100")}
        cost = {"train_cpu_seconds": seconds, "job_cpu_ms": 1.0}
        return {"mean": recall, "interval": [recall - 0.1, recall + 0.1], "sizes": sizes, **cost}

    names = ("random", "EASE column", "R1: ALS-64 on BM25 + ridge", "whiteroom")
    report = {"methods": {name: method(0.2 + 0.1 * i, 10.0 * i) for i, name in enumerate(names)}}
    pictures.draw_lookalike(report, tmp_path)
    pictures.draw_scale({"growth": {"interactions": [1, 10], "cpu_seconds": [1, 10], "exponent": 1.0}}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "quality-by-cost.png",
        "recall-by-seed-size.png",
        "training-by-interactions.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
