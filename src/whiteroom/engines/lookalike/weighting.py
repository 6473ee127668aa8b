"""Rows of counts as rows of the two matrices that are factorised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

BM25_K1 = 1.2
BM25_B = 0.75
LENGTH_POWER = -0.25
"""Rows of the linear view are multiplied by this power of their sum: between raw rows and rows of equal weight."""


@dataclass(frozen=True)
class Weighting:
    """Rows of counts as rows of the two matrices that are factorised.

    Attributes
    ----------
    idf : float32, items. mean_length : of a row of counts.
    """

    idf: np.ndarray
    mean_length: float

    @classmethod
    def of(cls, X: sp.csr_matrix) -> Weighting:
        """For rows like those of X (users x items, csr float32: 1 + log of counts)."""
        n = X.shape[0]
        df = np.bincount(X.indices, minlength=X.shape[1])
        # Lucene's form of Robertson and Zaragoza 2009, section 3.5: positive for every df.
        idf = np.log1p((n - df + 0.5) / (df + 0.5)).astype(np.float32)
        return cls(idf, max(float(_row_sums(X).mean()), 1e-12))

    def confidences(self, X: sp.csr_matrix) -> sp.csr_matrix:
        """BM25 weights: users are documents, items are terms."""
        saturation = BM25_K1 * (1 - BM25_B + BM25_B * _row_sums(X) / self.mean_length)
        per_entry = np.repeat(saturation.astype(np.float32), np.diff(X.indptr))
        return _like(X, X.data * np.float32(BM25_K1 + 1) / (X.data + per_entry) * self.idf[X.indices])

    def linear(self, X: sp.csr_matrix) -> sp.csr_matrix:
        """Rows times their sum to the LENGTH_POWER."""
        scale = np.maximum(_row_sums(X), 1e-12) ** LENGTH_POWER
        return _like(X, X.data * np.repeat(scale.astype(np.float32), np.diff(X.indptr)))


def _like(X: sp.csr_matrix, data: np.ndarray) -> sp.csr_matrix:
    return sp.csr_matrix((data.astype(np.float32, copy=False), X.indices, X.indptr), shape=X.shape)


def _row_sums(X: sp.csr_matrix) -> np.ndarray:
    return np.asarray(X.sum(axis=1, dtype=np.float64)).ravel()
