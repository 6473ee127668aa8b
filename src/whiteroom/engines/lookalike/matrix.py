"""From coded interactions to one sparse matrix, users x items, and its weightings. Pure numpy and scipy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from whiteroom.engines.lookalike.interactions import Interactions

BM25_K1 = 1.2
BM25_B = 0.75
BM25_GAIN = 3.0
"""The confidence of a BM25 weight of 1; chosen with the rest of the recipe on LAL-Eval."""


@dataclass(frozen=True)
class Population:
    """Who and what is left after the caps.

    Attributes
    ----------
    X : csr float32, users x items: 1 + log(number of interactions of the pair).
    rows : the codes of the users kept, ascending. columns : the codes of the items kept, ascending.
    n_interactions : interactions (repeats counted) that X stands for. n_active_users : users with two or more of them.
    """

    X: sp.csr_matrix
    rows: np.ndarray
    columns: np.ndarray
    n_interactions: int
    n_active_users: int


def build_population(
    data: Interactions,
    *,
    max_interactions: int | None,
    max_users: int | None,
    max_items: int | None,
    random_state: int,
) -> Population:
    """Count the pairs and apply the caps: sample whole users, keep the busiest users, keep the most popular items.

    Users of whom no interaction is left disappear. Ties go to the smaller id.
    """
    counts = sp.csr_matrix(
        (np.ones(len(data.users), np.float32), (data.users, data.items)),
        shape=(len(data.user_ids), len(data.item_ids)),
    )
    counts.sum_duplicates()
    rows, columns = np.arange(counts.shape[0]), np.arange(counts.shape[1])
    activity = _row_sums(counts)
    if max_interactions is not None and activity.sum() > max_interactions:
        rows = _sample_users(data.user_ids, activity, max_interactions, random_state)
    if max_users is not None and len(rows) > max_users:
        rows = np.sort(rows[np.argsort(-activity[rows], kind="stable")[:max_users]])
    if len(rows) < counts.shape[0]:
        counts = counts[rows]
    popularity = np.bincount(counts.indices, minlength=counts.shape[1])
    columns = np.flatnonzero(popularity)
    if max_items is not None and len(columns) > max_items:
        columns = np.sort(columns[np.argsort(-popularity[columns], kind="stable")[:max_items]])
    if len(columns) < counts.shape[1]:
        counts = counts[:, columns]
        alive = np.flatnonzero(np.diff(counts.indptr))
        counts, rows = counts[alive], rows[alive]
    counts = counts.tocsr()
    activity = _row_sums(counts)
    counts.data = 1 + np.log(counts.data)
    return Population(counts, rows, columns, int(activity.sum()), int(np.count_nonzero(activity >= 2)))


def _row_sums(matrix: sp.csr_matrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()


def _sample_users(user_ids: pa.Array, activity: np.ndarray, most: int, random_state: int) -> np.ndarray:
    """Users in the order of a keyed hash of their ids, as many as fit into `most` interactions, at least one.

    Whole users are kept, because a user's row is what is compared. The hash makes the sample uniform, and nearly
    the same one again when the data grow.
    """
    key = str(random_state).encode()
    digests = [hashlib.blake2b(one.encode(), digest_size=8, key=key).digest() for one in user_ids.to_pylist()]
    order = np.argsort(np.frombuffer(b"".join(digests), ">u8"), kind="stable")
    fitting = int(np.searchsorted(np.cumsum(activity[order]), most, side="right"))
    return np.sort(order[: max(1, fitting)])


def bm25(X: sp.csr_matrix) -> sp.csr_matrix:
    """BM25 weights of the rows, times BM25_GAIN: the confidences for ALS. Users are documents, items are terms.

    idf = log(1 + (n - df + 1/2) / (df + 1/2)), positive for every df (Lucene's form of Robertson and
    Zaragoza 2009, section 3.5); tf is the entry of X, length is the row's sum.
    """
    length = _row_sums(X)
    saturation = BM25_K1 * (1 - BM25_B + BM25_B * length / max(float(length.mean()), 1e-12))
    df = np.bincount(X.indices, minlength=X.shape[1])
    idf = np.log1p((X.shape[0] - df + 0.5) / (df + 0.5))
    per_entry = np.repeat(saturation.astype(np.float32), np.diff(X.indptr))
    weights = X.data * np.float32(BM25_K1 + 1) / (X.data + per_entry) * idf.astype(np.float32)[X.indices]
    return sp.csr_matrix((weights * np.float32(BM25_GAIN), X.indices, X.indptr), shape=X.shape)


def tfidf_scales(X: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """(row_scale, column_scale) such that diag(row_scale) X diag(column_scale) has TF-IDF rows of unit length.

    idf = log(1 + n / df). Keeping the scales instead of a second matrix halves the memory of a model.
    """
    df = np.bincount(X.indices, minlength=X.shape[1])
    column_scale = np.log1p(X.shape[0] / np.maximum(df, 1)).astype(np.float32)
    squares = sp.csr_matrix((np.square(X.data * column_scale[X.indices]), X.indices, X.indptr), shape=X.shape)
    length = np.sqrt(_row_sums(squares))
    return np.where(length > 0, 1 / np.maximum(length, 1e-12), 0).astype(np.float32), column_scale
