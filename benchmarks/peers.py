"""What the engine is compared with: the methods people build lookalikes from, each in a few lines.

All have `fit(X)` (csr, users x items) and `scores(seeds)` (arrays of row numbers -> users x seeds, many seeds in one
solve where a method gains by that). Y is the indicator of the seeds, users x seeds. Ours takes times as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from whiteroom.engines.lookalike import Lookalike

Seeds = Sequence[np.ndarray]


class Method(Protocol):
    def fit(self, X: sp.csr_matrix) -> Self: ...
    def scores(self, seeds: Seeds) -> np.ndarray: ...


class Ours:
    """The engine through its public interface; row numbers serve as user ids."""

    def __init__(self) -> None:
        self.model = Lookalike(random_state=7)

    def fit(self, X: sp.csr_matrix, times: np.ndarray | None = None) -> Self:
        pairs = X.tocoo()
        columns = {"user_id": pairs.row, "item_id": pairs.col}
        if times is not None:
            columns["timestamp"] = times.astype(np.int64)
        self.model.fit(pa.table(columns))
        self.rows = np.array(self.model.user_ids_.to_pylist(), dtype=np.int64)
        return self

    def scores(self, seeds: Seeds) -> np.ndarray:
        return np.stack([self.by_row(self.model.score(seed)) for seed in seeds], axis=1)

    def by_row(self, scores: np.ndarray) -> np.ndarray:
        """From the order of the model's users to that of the rows of X."""
        ordered = np.empty_like(scores)
        ordered[self.rows] = scores
        return ordered


# Methods that learn nothing ------------------------------------------------------------------------------------------


class Random:
    def fit(self, X: sp.csr_matrix) -> Self:
        self.n = X.shape[0]
        return self

    def scores(self, seeds: Seeds) -> np.ndarray:
        return np.stack([np.random.default_rng(seed).random(self.n) for seed in seeds], axis=1)


class Activity:
    """Who has the most items, whatever the seed."""

    def fit(self, X: sp.csr_matrix) -> Self:
        self.length = np.diff(X.indptr).astype(np.float32)
        return self

    def scores(self, seeds: Seeds) -> np.ndarray:
        return np.repeat(self.length[:, None], len(seeds), axis=1)


# Weights of items ----------------------------------------------------------------------------------------------------


class ItemWeights:
    """Scores A w: A is some weighting of the users' rows, w what `weigh` makes of A'Y (items x seeds)."""

    def __init__(
        self,
        rows: Callable[[sp.csr_matrix], sp.csr_matrix],
        weigh: Callable[[ItemWeights, np.ndarray, np.ndarray], np.ndarray] = lambda _self, sums, _sizes: sums,
    ) -> None:
        self.rows, self.weigh = rows, weigh

    def fit(self, X: sp.csr_matrix) -> Self:
        self.A = self.rows(X)
        self.At = self.A.T.tocsr()
        self.n = X.shape[0]
        self.popularity = np.maximum(np.bincount(X.indices, minlength=X.shape[1]), 1)[:, None]
        self.length = np.maximum(np.diff(X.indptr), 1)[:, None]
        return self

    def scores(self, seeds: Seeds) -> np.ndarray:
        sums = (self.At @ indicator(self.n, seeds)).toarray()
        sizes = np.array([len(seed) for seed in seeds])
        return np.asarray(self.A @ self.weigh(self, sums, sizes).astype(np.float32))


class ByLength(ItemWeights):
    """Divided by the root of the user's number of items."""

    def scores(self, seeds: Seeds) -> np.ndarray:
        return super().scores(seeds) / np.sqrt(self.length)


def log_odds(model: ItemWeights, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Naive Bayes: log-odds of each item among the seed against everybody, with a prior of 100 average users."""
    share = np.clip(model.popularity / model.n, 1e-9, 1 - 1e-9)
    inside = np.clip((sums + 100 * share) / (sizes + 100), 1e-9, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)) - np.log(share / (1 - share)))


def neighbours(model: ItemWeights, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cosine of every item's column with the seed's, shrunk: item-kNN with the seed as one more item."""
    return np.asarray(sums / (np.sqrt(model.popularity * sizes) + 10))


def ridge_weights(model: ItemWeights, sums: np.ndarray, sizes: np.ndarray, *, penalty: float) -> np.ndarray:
    """(A'A + penalty I) w = A'(Y - mean Y) by 20 steps of conjugate gradients, all seeds side by side.

    On raw rows this is the column that EASE would learn for the seed as one more item.
    """
    A, At = model.A, model.At
    residual = (sums - np.asarray(At.sum(axis=1)) * (sizes / model.n)).astype(np.float32)
    weights, direction = np.zeros_like(residual), residual
    size = np.square(residual).sum(axis=0)
    for _ in range(20):
        image = At @ (A @ direction) + np.float32(penalty) * direction
        step = size / np.maximum((direction * image).sum(axis=0), 1e-20)
        weights = weights + step * direction
        residual = residual - step * image
        before, size = size, np.square(residual).sum(axis=0)
        direction = residual + (size / np.maximum(before, 1e-20)) * direction
    return weights


def indicator(n: int, seeds: Seeds) -> sp.csc_matrix:
    ends = np.cumsum([0, *map(len, seeds)])
    return sp.csc_matrix((np.ones(ends[-1], np.float32), np.concatenate(seeds), ends), shape=(n, len(seeds)))


def raw(X: sp.csr_matrix) -> sp.csr_matrix:
    return X


def unit_tfidf(X: sp.csr_matrix) -> sp.csr_matrix:
    idf = np.log1p(X.shape[0] / np.maximum(np.bincount(X.indices, minlength=X.shape[1]), 1))
    T = X @ sp.diags(idf)
    return (sp.diags(1 / np.maximum(sp.linalg.norm(T, axis=1), 1e-9)) @ T).tocsr().astype(np.float32)


def walk(X: sp.csr_matrix) -> sp.csr_matrix:
    """Each entry over the root of its user's and its item's degree: a step of a walk on the graph of both."""
    by_degree = [sp.diags(1 / np.sqrt(np.maximum(np.asarray(X.sum(axis=axis)).ravel(), 1))) for axis in (1, 0)]
    return (by_degree[0] @ X @ by_degree[1]).tocsr().astype(np.float32)


# Vectors of users ----------------------------------------------------------------------------------------------------


class Vectors:
    """Vectors that `learn` makes of X, under a head: `cosine` to the centroid of the seed, or least squares."""

    def __init__(self, learn: Callable[[sp.csr_matrix], np.ndarray], head: str = "ridge", penalty: float = 3) -> None:
        self.learn, self.head, self.penalty = learn, head, penalty

    def fit(self, X: sp.csr_matrix) -> Self:
        vectors = self.learn(X)
        if self.head == "cosine":
            self.vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
            return self
        vectors = vectors - vectors.mean(axis=0)
        self.vectors = vectors / np.sqrt(np.square(vectors).mean())
        gram = self.vectors.T @ self.vectors + self.penalty * len(vectors) * np.eye(vectors.shape[1])
        self.inverse = np.linalg.inv(gram).astype(np.float32)
        return self

    def scores(self, seeds: Seeds) -> np.ndarray:
        sums = np.stack([self.vectors[seed].sum(axis=0) for seed in seeds], axis=1)
        return np.asarray(self.vectors @ (sums if self.head == "cosine" else self.inverse @ sums))


def plain(X: sp.csr_matrix) -> sp.csr_matrix:
    """The confidences that `implicit` is most often given."""
    return 10 * X


def bm25(X: sp.csr_matrix) -> sp.csr_matrix:
    """3 times the BM25 weight (k1 1.2, b 0.75) of each entry; users are documents, items are terms."""
    length = np.asarray(X.sum(axis=1)).ravel()
    saturation = 1.2 * (0.25 + 0.75 * length / length.mean()).astype(np.float32)
    popularity = np.bincount(X.indices, minlength=X.shape[1])
    idf = np.log1p((X.shape[0] - popularity + 0.5) / (popularity + 0.5)).astype(np.float32)
    weights = 3 * 2.2 * X.data / (X.data + np.repeat(saturation, np.diff(X.indptr))) * idf[X.indices]
    return sp.csr_matrix((weights.astype(np.float32), X.indices, X.indptr), shape=X.shape)


def als(X: sp.csr_matrix, *, confidences: Callable[[sp.csr_matrix], sp.csr_matrix] = plain) -> np.ndarray:
    from implicit.cpu.als import AlternatingLeastSquares

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(64, alpha=1.0, regularization=0.05, iterations=12, random_state=7)
        model.fit(confidences(X), show_progress=False)
    return np.asarray(model.user_factors)


def bpr(X: sp.csr_matrix) -> np.ndarray:
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    # One thread: with more, which update comes first is chance, and so is the model.
    model = BayesianPersonalizedRanking(
        64, learning_rate=0.05, regularization=0.01, iterations=60, num_threads=1, random_state=7
    )
    model.fit(X, show_progress=False)
    return np.asarray(model.user_factors)[:, :64]


def svd(X: sp.csr_matrix, *, factors: int = 128) -> np.ndarray:
    """Left singular vectors of the TF-IDF rows times their values, by randomised subspace iteration."""
    A = unit_tfidf(X)
    At = A.T.tocsr()
    basis = np.random.default_rng(0).standard_normal((A.shape[1], factors + 16)).astype(np.float32)
    with threadpool_limits(1, "blas"):
        for _ in range(4):
            basis = np.linalg.qr(At @ (A @ basis))[0]
        image = A @ basis
        _, _, right = np.linalg.svd(np.linalg.qr(image)[1])
    return np.asarray(image @ right[:factors].T)


# Several together ----------------------------------------------------------------------------------------------------


class Sum:
    """The sum of the members' scores, each standardised over the users."""

    def __init__(self, *members: Method) -> None:
        self.members = members

    def fit(self, X: sp.csr_matrix) -> Self:
        for member in self.members:
            member.fit(X)
        return self

    def scores(self, seeds: Seeds) -> np.ndarray:
        return np.asarray(sum(standardised(member.scores(seeds)) for member in self.members))


class CrossValidated(Sum):
    """The members weighted by how well they find hidden fifths of the seed.

    A member's worth is the mean rank (a share of the users, so an AUC) of the hidden users; its weight is
    exp(worth / standard error), where the standard error of a mean of s uniform ranks is 0.29 / sqrt(s).
    """

    def scores(self, seeds: Seeds) -> np.ndarray:
        hidden, fitted, of_seed = [], [], []
        for j, seed in enumerate(seeds):
            shuffled = np.random.default_rng(seed).permutation(seed)
            for part in np.array_split(shuffled, min(5, len(seed))):
                hidden.append(part)
                fitted.append(np.setdiff1d(seed, part))
                of_seed.append(j)
        members = [standardised(member.scores(seeds)) for member in self.members]
        worth = np.array([mean_ranks(member.scores(fitted), hidden, of_seed, len(seeds)) for member in self.members])
        error = 0.29 / np.sqrt([len(seed) for seed in seeds])
        weights = np.exp((worth - worth.max(axis=0)) / error)
        weights /= weights.sum(axis=0)
        return np.asarray(sum(w * member for w, member in zip(weights, members, strict=True)))


def standardised(scores: np.ndarray) -> np.ndarray:
    return np.asarray((scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-12))


def mean_ranks(scores: np.ndarray, hidden: Seeds, of_seed: Sequence[int], n_seeds: int) -> np.ndarray:
    """For each seed the mean over its hidden users of the share of users that score lower."""
    total, count = np.zeros(n_seeds), np.zeros(n_seeds)
    for j, (part, seed) in enumerate(zip(hidden, of_seed, strict=True)):
        total[seed] += np.searchsorted(np.sort(scores[:, j]), scores[part, j]).sum() / len(scores)
        count[seed] += len(part)
    return total / count


def sparse_ridge(rows: Callable[[sp.csr_matrix], sp.csr_matrix], penalty: float) -> Method:
    return ItemWeights(rows, partial(ridge_weights, penalty=penalty))


def naive_bayes() -> Method:
    return ByLength(raw, log_odds)


def pagerank() -> Method:
    """One step from the seed to its items and on to their users."""
    return ItemWeights(walk)


def r1() -> Method:
    return Vectors(partial(als, confidences=bm25))


def r2() -> tuple[Method, ...]:
    return r1(), sparse_ridge(unit_tfidf, 60), sparse_ridge(raw, 5000)


# The further members of R3 and R4 are the ones that give the figures published for them, to .001.
METHODS: dict[str, Callable[[], Any]] = {
    "random": Random,
    "activity": Activity,
    "TF-IDF centroid cosine": lambda: ItemWeights(unit_tfidf),
    "item-kNN": lambda: ByLength(raw, neighbours),
    "ALS-64 + centroid cosine": lambda: Vectors(als, "cosine"),
    "PageRank, 1 step": pagerank,
    "BPR-64 + ridge": lambda: Vectors(bpr),
    "naive Bayes log-odds": naive_bayes,
    "EASE column": lambda: sparse_ridge(raw, 5000),
    "SVD-128 + ridge": lambda: Vectors(svd),
    "sparse ridge on TF-IDF rows": lambda: sparse_ridge(unit_tfidf, 150),
    "ALS-64 + ridge": lambda: Vectors(als),
    "R1: ALS-64 on BM25 + ridge": r1,
    "R2: R1 + two sparse ridges": lambda: Sum(*r2()),
    "R3: five, cross-validated": lambda: CrossValidated(*r2(), sparse_ridge(raw, 500), naive_bayes()),
    "R4: eight, cross-validated": lambda: CrossValidated(
        *r2(), sparse_ridge(raw, 500), pagerank(), Vectors(svd), Vectors(als), Vectors(bpr)
    ),
    "whiteroom": Ours,
}
"""In the order of the table; ours is the last."""
SLOW = ("R3: five, cross-validated", "R4: eight, cross-validated")
"""Hundreds of milliseconds for each seed; a quick run leaves them out."""
