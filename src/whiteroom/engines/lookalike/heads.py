"""The heads: least-squares fits of "is in the seed" over all users, many seeds in one solve.

Three of them, each a closed form: a ridge on the user vectors, a ridge on the TF-IDF rows and a ridge on the raw
rows. Their scores are standardised over the users and added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg as sl

from whiteroom.engines.lookalike.evidence import Evidence
from whiteroom.engines.lookalike.factors import one_blas_thread

VECTOR_RIDGE = 3.0
"""Penalty of the ridge on vectors, for each user (the vectors have mean square 1)."""
TFIDF_RIDGE = 60.0
RAW_RIDGE = 5000.0
CG_ITERATIONS = 20


def score_seeds(evidence: Evidence, seeds: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of all users for each seed.

    Parameters
    ----------
    seeds : arrays of row numbers, each without repeats and not empty.

    Returns
    -------
    float32, users x len(seeds): the sum of the three standardised scores. All zero in a column where the
    evidence cannot tell any two users apart.
    """
    total = _standardised(_vector_scores(evidence, seeds))
    sparse = _sparse_scores(evidence, seeds)
    total += _standardised(sparse[:, : len(seeds)])
    total += _standardised(sparse[:, len(seeds) :])
    return total


def _vector_scores(evidence: Evidence, seeds: Sequence[np.ndarray]) -> np.ndarray:
    """vectors (vectors' vectors + VECTOR_RIDGE n I)^-1 (sum of the seed's vectors)."""
    sums = np.stack([evidence.vectors[seed].sum(axis=0, dtype=np.float64) for seed in seeds], axis=1)
    # The vectors are centred: of a seed of everybody only rounding is left.
    sums[:, [len(seed) == evidence.n_users for seed in seeds]] = 0
    penalty = VECTOR_RIDGE * evidence.n_users * np.eye(len(evidence.gram))
    with one_blas_thread():
        weights = sl.cho_solve(sl.cho_factor(evidence.gram + penalty), sums)
        return np.asarray(evidence.vectors @ weights.astype(np.float32))


def _sparse_scores(evidence: Evidence, seeds: Sequence[np.ndarray]) -> np.ndarray:
    """Scores A w with (A'A + lambda) w = A'(y - mean y): A the TF-IDF rows, then (further columns) A the raw rows.

    Block conjugate gradients from 0, CG_ITERATIONS steps. Both ridges and all seeds share each pass over X.
    """
    rows = _Rows(evidence, len(seeds))
    n = evidence.n_users
    indicator = np.zeros((n, 2 * len(seeds)), np.float32)
    for j, seed in enumerate(seeds):
        for column in (j, j + len(seeds)):
            indicator[:, column] = -len(seed) / n
            indicator[seed, column] += 1
    penalty = np.repeat(np.array([TFIDF_RIDGE, RAW_RIDGE], np.float32), len(seeds))
    residual = rows.transposed(indicator)
    del indicator
    weights = np.zeros_like(residual)
    direction = residual.copy()
    size = _squares(residual)
    for _ in range(CG_ITERATIONS):
        image = rows.transposed(rows.times(direction)) + penalty * direction
        curvature = np.einsum("ij,ij->j", direction, image, dtype=np.float64)
        step = (size / np.maximum(curvature, 1e-30)).astype(np.float32)
        weights += direction * step
        residual -= image * step
        new_size = _squares(residual)
        direction = residual + direction * (new_size / np.maximum(size, 1e-30)).astype(np.float32)
        size = new_size
    return rows.times(weights)


def _squares(block: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ij,ij->j", block, block, dtype=np.float64))


class _Rows:
    """The matrices [TF-IDF rows of X | F] and [X | feature_scale F], each applied to its half of a block's columns."""

    def __init__(self, evidence: Evidence, n_seeds: int) -> None:
        self.X, self.F = evidence.X, evidence.F
        self.n_items = evidence.X.shape[1]
        self.row_scale = evidence.row_scale[:, None]
        self.column_scale = evidence.column_scale[:, None]
        self.feature_scale = np.float32(evidence.feature_scale)
        self.tfidf = slice(0, n_seeds)
        self.raw = slice(n_seeds, 2 * n_seeds)
        self.X_transposed, self.F_transposed = evidence.X.T, evidence.F.T

    def times(self, block: np.ndarray) -> np.ndarray:
        """(items + feature columns) x 2 seeds -> users x 2 seeds."""
        items = block[: self.n_items].copy()
        items[:, self.tfidf] *= self.column_scale
        out = np.asarray(self.X @ items)
        out[:, self.tfidf] *= self.row_scale
        if self.F.shape[1]:
            features = block[self.n_items :].copy()
            features[:, self.raw] *= self.feature_scale
            out += self.F @ features
        return out

    def transposed(self, block: np.ndarray) -> np.ndarray:
        """Users x 2 seeds -> (items + feature columns) x 2 seeds."""
        scaled = block.copy()
        scaled[:, self.tfidf] *= self.row_scale
        items = np.asarray(self.X_transposed @ scaled)
        items[:, self.tfidf] *= self.column_scale
        if not self.F.shape[1]:
            return items
        features = np.asarray(self.F_transposed @ block)
        features[:, self.raw] *= self.feature_scale
        return np.concatenate([items, features])


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Each column minus its mean, over its standard deviation; zero where the spread is only rounding."""
    mean = scores.mean(axis=0, dtype=np.float64)
    spread = scores.std(axis=0, dtype=np.float64)
    flat = spread <= 1e-6 * np.abs(scores).max(axis=0, initial=0) + 1e-30
    out = (scores - mean.astype(np.float32)) / np.where(flat, 1, spread).astype(np.float32)
    out[:, flat] = 0
    return np.asarray(out)
