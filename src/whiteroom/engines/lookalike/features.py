"""User features as sparse columns: "feature=value" for categories, quantile bins for numbers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from whiteroom.engines.lookalike.interactions import Interactions, sorted_distinct

MAX_VALUES = 10_000
"""Values of one categorical feature that get a column of their own; the rest share one, "feature=<other>"."""
QUANTILE_BINS = 10


def feature_columns(data: Interactions, rows: np.ndarray) -> tuple[sp.csr_matrix, list[str]]:
    """The columns of all features of the users `rows`, and their names.

    Within a feature a user's entries are weighted by idf and scaled to unit length, so that each feature weighs the
    same however many values it has. A column that every user has, or none, tells nothing and is left out; so a
    constant or an all-null feature adds nothing.

    Returns
    -------
    csr float32, len(rows) x columns.
    """
    position = np.full(len(data.user_ids), -1, np.int32)
    position[rows] = np.arange(len(rows), dtype=np.int32)
    blocks: list[sp.csr_matrix] = []
    names: list[str] = []
    for name, (users, codes, values) in data.categorical.items():
        users = position[users]
        if len(rows) < len(position):
            users, codes = users[users >= 0], codes[users >= 0]
        block, labels = _categories(users, codes, values, len(rows))
        _append(blocks, names, block, [f"{name}={label}" for label in labels])
    for name, means in data.numerical.items():
        block, labels = _quantile_bins(means[rows])
        _append(blocks, names, block, [f"{name} {label}" for label in labels])
    if not blocks:
        return sp.csr_matrix((len(rows), 0), dtype=np.float32), []
    return sp.hstack(blocks, format="csr", dtype=np.float32), names


def _append(blocks: list[sp.csr_matrix], names: list[str], block: sp.csr_matrix, labels: list[str]) -> None:
    n = block.shape[0]
    df = np.bincount(block.indices, minlength=block.shape[1])
    telling = np.flatnonzero((df > 0) & (df < n))
    if not len(telling):
        return
    if len(telling) < len(df):
        block = block[:, telling].tocsr()
    block.data = np.log1p(n / df[telling]).astype(np.float32)[block.indices]
    squares = sp.csr_matrix((np.square(block.data), block.indices, block.indptr), shape=block.shape, copy=False)
    length = np.sqrt(np.asarray(squares.sum(axis=1)).ravel())
    block.data /= np.repeat(length, np.diff(block.indptr)).astype(np.float32)
    blocks.append(block)
    names.extend(labels[i] for i in telling)


def _one_hot(users: np.ndarray, codes: np.ndarray, n_users: int, n_values: int) -> sp.csr_matrix:
    """csr of ones at the pairs given, which may be in any order and repeated."""
    pairs = sorted_distinct(users.astype(np.int64) << 32 | codes)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(pairs >> 32, minlength=n_users))])
    parts = np.ones(len(pairs), np.float32), (pairs & 0xFFFFFFFF).astype(np.int32), indptr
    return sp.csr_matrix(parts, shape=(n_users, n_values), copy=False)


def _categories(
    users: np.ndarray, codes: np.ndarray, values: pa.Array, n_users: int
) -> tuple[sp.csr_matrix, list[str]]:
    if len(values) <= MAX_VALUES:
        return _one_hot(users, codes, n_users, len(values)), values.to_pylist()
    holders = np.bincount(codes, minlength=len(values))  # the pairs read are distinct
    kept = np.sort(np.argsort(-holders, kind="stable")[:MAX_VALUES])
    new_code = np.full(len(values), MAX_VALUES)
    new_code[kept] = np.arange(MAX_VALUES)
    labels = [*values.take(pa.array(kept)).to_pylist(), "<other>"]
    return _one_hot(users, new_code[codes], n_users, MAX_VALUES + 1), labels


def _quantile_bins(means: np.ndarray) -> tuple[sp.csr_matrix, list[str]]:
    """Bins of about equal numbers of users, and one more for those without a value."""
    known = np.isfinite(means)
    inner = np.linspace(0, 1, QUANTILE_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(means[known], inner)) if known.any() else np.empty(0)
    codes = np.where(known, np.searchsorted(edges, means, side="left"), len(edges) + 1)
    bounds = ["-inf", *(f"{edge:g}" for edge in edges), "inf"]
    labels = [f"in ({low}, {high}]" for low, high in pairwise(bounds)] + ["missing"]
    return _one_hot(np.arange(len(means)), codes, len(means), len(labels)), labels
