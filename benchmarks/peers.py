"""What the engine is compared with: the methods people build lookalikes from, each in a few lines.

All have `fit(X)` (csr, users x items) and `score(seed)` (row numbers -> one number for each user).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from whiteroom.engines.lookalike import Lookalike
from whiteroom.engines.lookalike.factors import centred
from whiteroom.engines.lookalike.matrix import bm25


class Method(Protocol):
    def fit(self, X: sp.csr_matrix) -> Self: ...
    def score(self, seed: np.ndarray) -> np.ndarray: ...


class Ours:
    """The engine through its public interface; row numbers serve as user ids."""

    def __init__(self) -> None:
        self.model = Lookalike(random_state=7)

    def fit(self, X: sp.csr_matrix) -> Self:
        pairs = X.tocoo()
        self.model.fit(pa.table({"user_id": pairs.row, "item_id": pairs.col}))
        self.rows = np.array(self.model.user_ids_.to_pylist(), dtype=np.int64)
        return self

    def score(self, seed: np.ndarray) -> np.ndarray:
        scores = np.empty(len(self.rows), np.float32)
        scores[self.rows] = self.model.score(seed)
        return scores


class Random:
    def fit(self, X: sp.csr_matrix) -> Self:
        self.n = X.shape[0]
        return self

    def score(self, seed: np.ndarray) -> np.ndarray:
        return np.random.default_rng(seed).random(self.n)


def unit_tfidf(X: sp.csr_matrix) -> sp.csr_matrix:
    idf = np.log1p(X.shape[0] / np.maximum(np.bincount(X.indices, minlength=X.shape[1]), 1))
    T = X @ sp.diags(idf)
    return (sp.diags(1 / np.maximum(sp.linalg.norm(T, axis=1), 1e-9)) @ T).tocsr().astype(np.float32)


class Centroid:
    """Cosine of TF-IDF rows to the mean row of the seed."""

    def fit(self, X: sp.csr_matrix) -> Self:
        self.T = unit_tfidf(X)
        return self

    def score(self, seed: np.ndarray) -> np.ndarray:
        return np.asarray(self.T @ np.asarray(self.T[seed].mean(axis=0)).ravel())


class SparseRidge:
    """Least squares of "is in the seed" on TF-IDF rows, by conjugate gradients; its best penalty alone is 150."""

    def fit(self, X: sp.csr_matrix) -> Self:
        self.T = unit_tfidf(X)
        return self

    def score(self, seed: np.ndarray) -> np.ndarray:
        T, n_items = self.T, self.T.shape[1]
        y = np.zeros(T.shape[0], np.float32)
        y[seed] = 1
        normal = sp.linalg.LinearOperator((n_items, n_items), lambda w: T.T @ (T @ w) + 150 * w, dtype=np.float32)
        weights, _ = sp.linalg.cg(normal, T.T @ (y - y.mean()), maxiter=20, rtol=1e-6)
        return np.asarray(T @ weights)


class NaiveBayes:
    """Log-odds of each item among the seed against everybody, a prior of 100 average users, over sqrt(items)."""

    def fit(self, X: sp.csr_matrix) -> Self:
        self.X = X
        self.share = np.clip(np.asarray(X.mean(axis=0)).ravel(), 1e-9, 1 - 1e-9)
        self.length = np.sqrt(np.maximum(np.diff(X.indptr), 1))
        return self

    def score(self, seed: np.ndarray) -> np.ndarray:
        inside = (np.asarray(self.X[seed].sum(axis=0)).ravel() + 100 * self.share) / (len(seed) + 100)
        inside = np.clip(inside, 1e-9, 1 - 1e-6)
        odds = np.log(inside / (1 - inside)) - np.log(self.share / (1 - self.share))
        return np.asarray(self.X @ odds.astype(np.float32)) / self.length


class Als:
    """ALS-64 of the library `implicit` under a head: `cosine` to the centroid of the seed, or `ridge`."""

    def __init__(self, head: str, *, bm25_weights: bool = False) -> None:
        self.head, self.bm25_weights = head, bm25_weights

    def fit(self, X: sp.csr_matrix) -> Self:
        from implicit.cpu.als import AlternatingLeastSquares

        with threadpool_limits(1, "blas"):
            als = AlternatingLeastSquares(64, regularization=0.05, iterations=12, random_state=7)
            als.fit(bm25(X) if self.bm25_weights else 10 * X, show_progress=False)
        vectors = als.user_factors
        if self.head == "cosine":
            self.vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        else:
            self.vectors = centred(vectors)
            self.inverse = np.linalg.inv(self.vectors.T @ self.vectors + 3 * len(vectors) * np.eye(64))
        return self

    def score(self, seed: np.ndarray) -> np.ndarray:
        total = self.vectors[seed].sum(axis=0)
        return np.asarray(self.vectors @ (total if self.head == "cosine" else self.inverse @ total))


METHODS: dict[str, Callable[[], Method]] = {
    "random": Random,
    "TF-IDF centroid cosine": Centroid,
    "ALS-64 + centroid cosine": lambda: Als("cosine"),
    "naive Bayes log-odds": NaiveBayes,
    "sparse ridge on TF-IDF rows": SparseRidge,
    "ALS-64 + ridge": lambda: Als("ridge"),
    "R1: ALS-64 on BM25 + ridge": lambda: Als("ridge", bm25_weights=True),
    "whiteroom": Ours,
}
