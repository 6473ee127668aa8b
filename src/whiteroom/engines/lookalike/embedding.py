"""User vectors: what is learned about the items, and how a user's row becomes a vector.

Views of a user are learned on a sample of the users: the row's projection on the leading right singular vectors of
the matrix, its ALS vectors at a strong and at a weak confidence, and the projection of the user's features on theirs.
Each view is centred and weighted, and the views side by side are rotated to their principal axes. What is learned
belongs to the columns, so any user's row, seen in training or not, becomes a vector by itself: batch by batch, on this
machine or on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.linalg as sl
import scipy.sparse as sp

from whiteroom.engines.lookalike.weighting import Weighting

Progress = Callable[[float, str], None]

VIEW_FACTORS = 128
"""Length of each view's vectors, at most."""
OVERSAMPLING = 16
SUBSPACE_ITERATIONS = 3
WARM_ITERATIONS = 1
"""Iterations of each kind that start from what an earlier model learned."""
LINEAR_WEIGHT = 0.7
ALS_REGULARIZATION = 0.45
"""In units of the largest singular value that noise of the matrix's mean square would have (Marchenko, Pastur 1967):
what a factor explains below that is shrunk away."""
AXES_USERS = 5_000
"""Users from whom the weights of the views and their principal axes are taken."""
LEARNING_STEPS = 2
ENCODING_STEPS = 4
"""Steps of conjugate gradients for one vector: in training they start from the last iteration's, in encoding from 0."""


@dataclass(frozen=True)
class AlsView:
    """How one ALS view is learned: factors, confidence of a BM25 weight of 1, iterations, weight beside the others."""

    factors: int
    gain: float
    iterations: int
    weight: float


ALS_VIEWS = (
    AlsView(factors=128, gain=12.0, iterations=3, weight=1.0),
    AlsView(factors=64, gain=3.0, iterations=2, weight=0.5),
)


@dataclass(frozen=True)
class AlsFactors:
    """One of ALS_VIEWS as learned.

    Attributes
    ----------
    columns : float32, columns x factors. regularization : of the ridge that makes a user's vector of them.
    center : float32, factors: subtracted from a user's vector before it is scaled to length 1.
    """

    columns: np.ndarray
    regularization: float
    center: np.ndarray


_ARRAYS = ("columns", "right", "features", "views_mean", "rotation")


@dataclass(frozen=True)
class Embedding:
    """Everything that makes a user's vector from the user's row.

    Attributes
    ----------
    columns : int, ascending: the items that at least two users of the sample have; only they count.
    right : float32, columns x factors: right singular vectors of the linear rows.
    als : for each of ALS_VIEWS.
    features : float32, feature columns x factors: right singular vectors of the features.
    views_mean : float32, all views side by side: subtracted from them.
    rotation : float32, views x dimensions: weighs the views and turns them to their principal axes.
    """

    weighting: Weighting
    columns: np.ndarray
    right: np.ndarray
    als: tuple[AlsFactors, ...]
    features: np.ndarray
    views_mean: np.ndarray
    rotation: np.ndarray

    @property
    def dimensions(self) -> int:
        return int(self.rotation.shape[1])

    def facts(self) -> dict[str, Any]:
        """The numbers of this, for JSON; the rest is in `arrays`, and `of` puts both together again."""
        return {
            "mean_length": self.weighting.mean_length,
            "regularizations": [one.regularization for one in self.als],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        als = {f"als_{k}": one.columns for k, one in enumerate(self.als)}
        centers = {f"als_center_{k}": one.center for k, one in enumerate(self.als)}
        return {"idf": self.weighting.idf, **als, **centers} | {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def of(cls, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Embedding:
        als = [
            AlsFactors(arrays[f"als_{k}"], float(regularization), arrays[f"als_center_{k}"])
            for k, regularization in enumerate(facts["regularizations"])
        ]
        weighting = Weighting(arrays["idf"], float(facts["mean_length"]))
        return cls(weighting=weighting, als=tuple(als), **{name: arrays[name] for name in _ARRAYS})

    def encode(self, X: sp.csr_matrix, F: sp.csr_matrix, *, threads: int = 0) -> np.ndarray:
        """Vectors of users: float32, rows x dimensions.

        Parameters
        ----------
        X : csr float32, rows x items: 1 + log of counts. F : csr float32, rows x feature columns.
        threads : changes no result.
        """
        with one_blas_thread():
            return np.asarray((np.concatenate(self.views(X, F, threads), axis=1) - self.views_mean) @ self.rotation)

    def views(self, X: sp.csr_matrix, F: sp.csr_matrix, threads: int) -> list[np.ndarray]:
        """float32, rows x factors each: linear, ALS_VIEWS, features."""
        confidences = self.weighting.confidences(X)[:, self.columns]
        views = [np.asarray(self.weighting.linear(X)[:, self.columns] @ self.right)]
        for view, learned in zip(ALS_VIEWS, self.als, strict=True):
            vectors = np.zeros((X.shape[0], learned.columns.shape[1]), np.float32)
            solve = _als_solver(ENCODING_STEPS, threads)
            solve(confidences * np.float32(view.gain), vectors, learned.columns, learned.regularization)
            views.append(_unit_rows(vectors - learned.center))
        return [*views, np.asarray(F @ self.features)]


def learn_embedding(
    X: sp.csr_matrix,
    F: sp.csr_matrix,
    *,
    dimensions: int,
    feature_weight: float,
    random_state: int,
    threads: int,
    progress: Progress,
    start: Start | None = None,
) -> Embedding:
    """Learn from a sample of users.

    Parameters
    ----------
    X : csr float32, users x items: 1 + log of counts. F : csr float32, users x feature columns.
    feature_weight : of the features beside the other views (see ALS_VIEWS).
    start : what an earlier model learned of these items; saves iterations.
    """
    weighting = Weighting.of(X)
    columns = np.flatnonzero(np.bincount(X.indices, minlength=X.shape[1]) >= 2)
    linear = weighting.linear(X)[:, columns]
    confidences = weighting.confidences(X)[:, columns]
    with one_blas_thread():
        progress(0.0, "leading singular vectors")
        # As of the items: a value that one user has says of nobody else what it goes with.
        shared = np.flatnonzero(np.bincount(F.indices, minlength=F.shape[1]) >= 2)
        known_features, _ = _right_singular_vectors(F[:, shared], random_state, SUBSPACE_ITERATIONS)
        features = np.zeros((F.shape[1], known_features.shape[1]), np.float32)
        features[shared] = known_features
        basis, rounds = (None, SUBSPACE_ITERATIONS) if start is None else (start.right[columns], WARM_ITERATIONS)
        right, values = _right_singular_vectors(linear, random_state, rounds, basis)
        # The singular values are shared out between users and items; the size only has to be roughly right.
        first = right * np.sqrt(values / values.max(initial=0)).astype(np.float32) * np.float32(X.shape[0] ** 0.25)
        als = []
        for number, view in enumerate(ALS_VIEWS):
            told = partial(_told, progress, (1 + number) / (2 + len(ALS_VIEWS)), f"factors {number + 1}")
            known = None if start is None else start.als[number][columns]
            als.append(_learn_factors(confidences, view, first[:, : view.factors], known, threads, told))
        progress(0.9, "principal axes")
        bare = Embedding(weighting, columns, right, tuple(als), features, np.empty(0), np.empty((0, 0)))
        rows = np.arange(X.shape[0])
        if len(rows) > AXES_USERS:
            rows = np.sort(np.random.default_rng(random_state).choice(rows, AXES_USERS, replace=False))
        weights = [LINEAR_WEIGHT, *(view.weight for view in ALS_VIEWS), feature_weight]
        mean, rotation = _principal_axes(bare.views(X[rows], F[rows], threads), weights, dimensions)
    return replace(bare, views_mean=mean, rotation=rotation)


@dataclass(frozen=True)
class Start:
    """What an earlier model learned, for the items of a new one: zero where the earlier one did not know an item.

    Attributes
    ----------
    right : float32, items x factors. als : for each of ALS_VIEWS, float32, items x factors.
    """

    right: np.ndarray
    als: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, earlier: Embedding, earlier_item_ids: pa.Array, item_ids: pa.Array) -> Start:
        """What `earlier` learned of the items that have these ids."""
        items = pc.fill_null(pc.index_in(item_ids, value_set=earlier_item_ids), -1).to_numpy(zero_copy_only=False)
        at = np.full(len(earlier.weighting.idf) + 1, -1)  # the last place is that of -1
        at[earlier.columns] = np.arange(len(earlier.columns))
        rows = at[items]

        def aligned(learned: np.ndarray) -> np.ndarray:
            padded = np.concatenate([learned, np.zeros((1, learned.shape[1]), np.float32)])
            return np.asarray(padded[rows])

        return cls(aligned(earlier.right), tuple(aligned(one.columns) for one in earlier.als))


def _told(progress: Progress, share: float, name: str, iteration: int) -> None:
    progress(share, f"{name}, iteration {iteration}")


def _right_singular_vectors(
    A: sp.csr_matrix, random_state: int, iterations: int, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(columns x k orthonormal float32, k singular values descending): the leading ones of A, nearly.

    Subspace iteration on the column side (Halko, Martinsson, Tropp 2011, section 4.5): only columns x k is kept.
    """
    width = min(VIEW_FACTORS + OVERSAMPLING, *A.shape)
    if not width:
        return np.zeros((A.shape[1], 0), np.float32), np.zeros(0)
    Q = np.random.default_rng(random_state).standard_normal((A.shape[1], width)).astype(np.float32)
    if start is not None:
        shared = min(width, start.shape[1])
        Q[:, :shared] = start[:, :shared]
    for _ in range(iterations):
        Q = _orthonormal(A.T @ (A @ Q))
    B = A @ Q
    squares, axes = sl.eigh((B.T @ B).astype(np.float64))
    kept = [k for k in np.argsort(-squares)[:VIEW_FACTORS] if squares[k] > 1e-10 * squares.max()]
    return Q @ axes[:, kept].astype(np.float32), np.sqrt(squares[kept])


def _orthonormal(W: np.ndarray) -> np.ndarray:
    """An orthonormal basis of W's columns by way of W'W: far faster than QR where W is tall."""
    for _ in range(2):  # the second pass mends what rounding left of the first
        W = W / np.maximum(np.linalg.norm(W, axis=0), 1e-30)
        squares, axes = sl.eigh((W.T @ W).astype(np.float64))
        kept = squares > 1e-8 * squares[-1]
        W = W @ (axes[:, kept] / np.sqrt(squares[kept])).astype(np.float32)
    return np.asarray(W)


def _noise_edge(C: sp.csr_matrix) -> float:
    """The largest singular value of noise that has C's shape and mean square: sigma (sqrt(n) + sqrt(m))."""
    n, m = C.shape
    sigma = np.sqrt(np.square(C.data, dtype=np.float64).sum() / (n * m))
    return float(sigma * (np.sqrt(n) + np.sqrt(m)))


def _learn_factors(
    confidences: sp.csr_matrix,
    view: AlsView,
    factors: np.ndarray,
    known: np.ndarray | None,
    threads: int,
    told: Callable[[int], None],
) -> AlsFactors:
    """Implicit ALS (Hu, Koren, Volinsky 2008; conjugate gradients after Takács, Pilászy, Tikk 2011).

    Parameters
    ----------
    factors : float32, columns x factors, to start from. known : better ones, from an earlier model, if there are.
    """
    if not factors.size:
        return AlsFactors(factors, 1.0, np.zeros(factors.shape[1], np.float32))
    C = confidences * np.float32(view.gain)
    transposed = C.T.tocsr()
    regularization = ALS_REGULARIZATION * _noise_edge(C)
    iterations = view.iterations
    if known is not None and known.shape == factors.shape:
        iterations, factors = WARM_ITERATIONS, known
    solve = _als_solver(LEARNING_STEPS, threads)
    factors = factors.copy(order="C")
    vectors = np.zeros((C.shape[0], factors.shape[1]), np.float32)
    for iteration in range(iterations):
        told(iteration + 1)
        solve(C, vectors, factors, regularization)
        # Only the product matters; the ridge is least where both sides are of equal size.
        balance = np.float32(np.sqrt(np.linalg.norm(vectors) / max(float(np.linalg.norm(factors)), 1e-30)) or 1)
        vectors /= balance
        factors *= balance
        solve(transposed, factors, vectors, regularization)
    return AlsFactors(factors, regularization, vectors.mean(axis=0, dtype=np.float64).astype(np.float32))


def _als_solver(steps: int, threads: int) -> Callable[[sp.csr_matrix, np.ndarray, np.ndarray, float], None]:
    """solve(C, rows, columns, regularization) moves `rows` towards the ridge solutions, in place, each by itself."""
    from implicit.cpu.als import AlternatingLeastSquares

    als = AlternatingLeastSquares(num_threads=threads)
    als.cg_steps = steps
    solver: Any = als.solver
    return partial(_solve, solver, threads)


def _solve(
    solver: Any, threads: int, C: sp.csr_matrix, rows: np.ndarray, columns: np.ndarray, regularization: float
) -> None:
    if columns.size:
        solver(C, rows, columns, regularization, num_threads=threads)


def _principal_axes(views: list[np.ndarray], weights: list[float], dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean, rotation) of the views (each users x factors) side by side: each weighted, then their main axes."""
    means, parts = [], []
    for view, weight in zip(views, weights, strict=True):
        size = float(np.square(view, dtype=np.float64).sum())
        means.append(view.mean(axis=0, dtype=np.float64).astype(np.float32))
        centred = view - means[-1]
        spread = float(np.square(centred, dtype=np.float64).sum())
        # What is left of a view in which all users are equal is rounding; scaling it up would rank them by noise.
        parts.append(np.float32(weight / np.sqrt(spread / len(view)) if spread > 1e-9 * size else 0))
    mean = np.concatenate(means)
    scale = np.repeat(parts, [view.shape[1] for view in views])
    scaled = (np.concatenate(views, axis=1) - mean) * scale
    squares, axes = sl.eigh((scaled.T @ scaled).astype(np.float64) / len(scaled))
    kept = np.argsort(-squares)[:dimensions]
    kept = kept[squares[kept] > 1e-7 * max(squares.max(initial=0), 1e-30)]
    if not len(kept):
        return mean, np.zeros((len(mean), 1), np.float32)
    return mean, (scale[:, None] * axes[:, kept]).astype(np.float32)


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


@cache
def _thread_pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS splits sums by its thread count, so results would depend on the machine; one thread keeps them the same.

    `implicit` uses its own threads, one user at a time, which changes no sum.
    """
    with _thread_pools().limit(limits=1, user_api="blas"):
        yield
