"""The user vectors of a model and what every seed needs to know about them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg as sl

from whiteroom.engines.lookalike.embedding import one_blas_thread
from whiteroom.engines.lookalike.workspace import Workspace

BACKGROUND = 20_000
"""Users that stand for the population where recall and relevance are measured."""
CHOOSING = 4_000
"""Users of the background that are enough to choose a penalty."""
ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class UserSpace:
    """All users as vectors, and the principal axes of the population.

    Attributes
    ----------
    vectors : users x dimensions, float32, float16 or int8 (then times `scale`); may be memory-mapped.
    scale : float32, dimensions. mean : float64, dimensions. spectrum : float64, axes: variance along each axis.
    axes : float64, dimensions x axes. background_rows : int64: a fixed random sample of the users, in random order.
    background : float32, its users in the principal axes. choosing : how many of them suffice to choose a penalty.
    """

    vectors: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    spectrum: np.ndarray
    axes: np.ndarray
    background_rows: np.ndarray
    background: np.ndarray
    choosing: int = CHOOSING

    @classmethod
    def of(
        cls,
        vectors: np.ndarray,
        scale: np.ndarray,
        mean: np.ndarray,
        spectrum: np.ndarray,
        axes: np.ndarray,
        random_state: int,
    ) -> UserSpace:
        """The space of these vectors, with a background drawn from them."""
        # At random, not by id, which may mean something: a part of them has to stand for all.
        rows = np.random.default_rng(random_state).permutation(len(vectors))[:BACKGROUND]
        bare = cls(vectors, scale, mean, spectrum, axes, rows, np.empty((0, 0), np.float32))
        with one_blas_thread():
            return replace(bare, background=bare.principal(rows))

    @property
    def n_users(self) -> int:
        return len(self.vectors)

    def principal(self, rows: np.ndarray) -> np.ndarray:
        """float32, rows x axes: these users, centred, in the principal axes."""
        vectors = self.vectors[rows].astype(np.float32) * self.scale
        return np.asarray((vectors - self.mean.astype(np.float32)) @ self.axes.astype(np.float32))

    def scores(self, weights: np.ndarray, *, threads: int = 0) -> np.ndarray:
        """float32, users: centred vectors times `weights`, in one pass over the vectors."""
        weights = weights.astype(np.float32)
        scaled = weights * self.scale
        out = np.empty(self.n_users, np.float32)
        offset = np.float32(self.mean @ weights)
        plain = self.vectors.dtype == np.float32

        def one(start: int) -> None:
            part = self.vectors[start : start + ROWS_AT_ONCE]
            np.dot(part if plain else part.astype(np.float32), scaled, out=out[start : start + len(part)])

        # The parts are the same whatever the threads, so the results are, too.
        starts = range(0, self.n_users, ROWS_AT_ONCE)
        with one_blas_thread():
            if len(starts) < 4:
                for start in starts:
                    one(start)
            else:
                with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
                    list(pool.map(one, starts))
        out -= offset
        return out


def user_space(
    vectors: np.ndarray, scale: np.ndarray, mean: np.ndarray, gram: np.ndarray, random_state: int
) -> UserSpace:
    """The space of these vectors.

    Parameters
    ----------
    mean : float64, dimensions: of the vectors. gram : float64, dimensions x dimensions: mean of their outer products.
    """
    with one_blas_thread():
        spectrum, axes = sl.eigh(gram - np.outer(mean, mean))
    return UserSpace.of(vectors, scale, mean, np.maximum(spectrum, 0), axes, random_state)


def quantized(vectors: np.ndarray, precision: str, workspace: Workspace) -> tuple[np.ndarray, np.ndarray]:
    """(vectors as float32, float16 or int8, scale): what they are multiplied by to get them back, nearly."""
    scale = np.ones(vectors.shape[1], np.float32)
    if precision == "float32":
        return vectors, scale
    parts = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(vectors), ROWS_AT_ONCE)]
    if precision == "int8":
        largest = np.max([np.abs(vectors[part]).max(axis=0) for part in parts], axis=0)
        scale = (np.maximum(largest, 1e-12) / 127).astype(np.float32)
    kept = workspace.array(vectors.shape, precision)
    for part in parts:
        kept[part] = np.rint(vectors[part] / scale) if precision == "int8" else vectors[part]
    return kept, scale
