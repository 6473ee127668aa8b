"""What a fitted model holds of its users: all that a seed is compared by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from whiteroom.engines.lookalike.factors import learn_vectors, one_blas_thread
from whiteroom.engines.lookalike.matrix import bm25, tfidf_scales


@dataclass(frozen=True)
class Evidence:
    """User vectors, and the sparse rows they were learned from.

    Attributes
    ----------
    vectors : float32, users x factors, centred, mean square 1. gram : float64, factors x factors, vectors' vectors.
    X : csr float32, users x items. row_scale, column_scale : float32, make X's rows TF-IDF rows of unit length.
    F : csr float32, users x feature columns (may have none). feature_scale : what F is multiplied by beside the raw X.
    """

    vectors: np.ndarray
    gram: np.ndarray
    X: sp.csr_matrix
    row_scale: np.ndarray
    column_scale: np.ndarray
    F: sp.csr_matrix
    feature_scale: float

    @property
    def n_users(self) -> int:
        return int(self.X.shape[0])


def learn_evidence(
    X: sp.csr_matrix,
    F: sp.csr_matrix,
    *,
    factors: int,
    iterations: int,
    regularization: float,
    random_state: int,
    threads: int,
    progress: Callable[[float, str], None],
) -> Evidence:
    """Learn the user vectors from X (users x items) and the weighted F (users x feature columns), and keep all three.

    A feature entry of 1 counts in the training as much as an average interaction, and in the raw rows as much as an
    average user's whole row has length; in the TF-IDF rows, whose length is 1, it does so without scaling.
    """
    confidences = bm25(X)
    if F.shape[1]:
        confidences = sp.hstack([confidences, F * np.float32(confidences.data.mean())], format="csr")
    vectors = learn_vectors(
        confidences,
        factors=factors,
        iterations=iterations,
        regularization=regularization,
        random_state=random_state,
        threads=threads,
        progress=progress,
    )
    with one_blas_thread():
        gram = (vectors.T @ vectors).astype(np.float64)
    row_scale, column_scale = tfidf_scales(X)
    feature_scale = float(np.sqrt(np.square(X.data).sum(dtype=np.float64) / X.shape[0]))
    return Evidence(vectors, gram, X, row_scale, column_scale, F, feature_scale)
