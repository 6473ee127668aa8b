"""User vectors by implicit alternating least squares (Hu, Koren, Volinsky 2008; conjugate gradients after
Takács, Pilászy, Tikk 2011), from the library `implicit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS splits sums by its thread count, so results would depend on the machine; one thread keeps them the same.

    `implicit` uses its own threads, one user at a time, which changes no sum.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def learn_vectors(
    confidences: sp.csr_matrix,
    *,
    factors: int,
    iterations: int,
    regularization: float,
    random_state: int,
    threads: int,
    progress: Callable[[float, str], None],
) -> np.ndarray:
    """One vector for each row of `confidences` (users x columns, csr float32), centred and scaled to mean square 1.

    Returns
    -------
    float32, users x factors; all zero where every user has the same vector.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    with one_blas_thread():
        als = AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=1.0,
            iterations=iterations,
            num_threads=threads,
            random_state=random_state,
            dtype=np.float32,
        )
        als.fit(
            confidences,
            show_progress=False,
            callback=lambda done, _seconds, _loss: progress(
                (done + 1) / iterations, f"iteration {done + 1} of {iterations}"
            ),
        )
        return centred(als.user_factors)


def centred(vectors: np.ndarray) -> np.ndarray:
    """Subtract the mean vector and divide by one number, so that the mean square of an entry is 1."""
    size = np.sqrt(np.mean(np.square(vectors), dtype=np.float64))
    vectors = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(np.mean(np.square(vectors), dtype=np.float64))
    # What is left of equal vectors is rounding; scaling it up would rank users by noise.
    if spread <= 1e-5 * size or spread == 0:
        return np.zeros_like(vectors)
    return np.asarray(vectors / np.float32(spread))
