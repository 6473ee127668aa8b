"""From coded interactions to one sparse matrix, users x items, counted out of core. Pure numpy and scipy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from whiteroom.engines.lookalike.interactions import Interactions
from whiteroom.engines.lookalike.workspace import Workspace, drop_pages

ROWS_AT_ONCE = 4_000_000
PARTITION = 8_000_000
"""Interactions counted together; counting takes about 40 bytes of memory for each."""

MOST_REPEATS = 2**16 - 1
"""More repeats of a pair count as this many."""
WEIGHTS = np.concatenate([[0], 1 + np.log(np.arange(1, MOST_REPEATS + 1, dtype=np.float32))]).astype(np.float32)


@dataclass(frozen=True)
class Rows:
    """Who did what how often, users x items: a csr matrix whose entries may be on disk.

    Attributes
    ----------
    indptr : int64, n_users + 1; the entries of user u are at indptr[u] to indptr[u + 1].
    indices : int32, nnz: item codes, ascending within a user. counts : uint16, nnz, 65,535 standing for any more.
    """

    indptr: np.ndarray
    indices: np.ndarray
    counts: np.ndarray
    n_items: int

    @property
    def n_users(self) -> int:
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        return int(self.indptr[-1])

    def block(self, start: int, stop: int) -> sp.csr_matrix:
        """Users start to stop: csr float32 with entries 1 + log(count). Its indices may be a view of this."""
        first, last = self.indptr[start], self.indptr[stop]
        parts = WEIGHTS[self.counts[first:last]], self.indices[first:last], self.indptr[start : stop + 1] - first
        return sp.csr_matrix(parts, shape=(stop - start, self.n_items), copy=False)

    def blocks(self, entries: int = 2_000_000) -> Iterator[tuple[int, int]]:
        """(start, stop) of successive users who have about `entries` entries together, until all were there."""
        for start, stop in pairwise(_bounds(self.indptr, entries)):
            yield start, stop
            drop_pages(self.indices, self.counts)

    def take(self, rows: np.ndarray) -> sp.csr_matrix:
        """The users `rows`, ascending, as csr float32 in memory with entries 1 + log(count)."""
        indptr = _offsets(np.diff(self.indptr)[rows])
        indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
        for start, stop in pairwise(_bounds(indptr, ROWS_AT_ONCE)):
            first, last = indptr[start], indptr[stop]
            shift = self.indptr[rows[start:stop]] - indptr[start:stop]
            entries = np.repeat(shift, np.diff(indptr[start : stop + 1])) + np.arange(first, last)
            indices[first:last] = self.indices[entries]
            data[first:last] = WEIGHTS[self.counts[entries]]
            drop_pages(self.indices, self.counts)
        return sp.csr_matrix((data, indices, indptr), shape=(len(rows), self.n_items), copy=False)


@dataclass(frozen=True)
class Population:
    """Who and what is left after the caps.

    Attributes
    ----------
    X : users x items.
    rows : the codes of the users kept, ascending. columns : the codes of the items kept, ascending.
    n_interactions : interactions (repeats counted) that X stands for. n_active_users : users with two or more of them.
    """

    X: Rows
    rows: np.ndarray
    columns: np.ndarray
    n_interactions: int
    n_active_users: int


def build_population(
    data: Interactions,
    *,
    workspace: Workspace,
    max_interactions: int | None,
    max_users: int | None,
    max_items: int | None,
    random_state: int,
) -> Population:
    """Count the pairs and apply the caps: sample whole users, keep the busiest users, keep the most popular items.

    Users of whom no interaction is left disappear. Ties go to the smaller id.

    The interactions are sorted into partitions of successive users, and each partition is counted in memory: beside
    the workspace's arrays, memory is some 400 MB, and a few numbers a user and an item.

    Raises
    ------
    MemoryLimitError : the disk is full.
    """
    activity = _frequencies(data.users, len(data.user_ids))
    rows = kept_users(data.user_ids, activity, max_interactions, max_users, random_state)
    X, repeats = _count(data, rows, activity[rows], workspace)
    popularity = _frequencies(X.indices, X.n_items)
    columns = np.flatnonzero(popularity)
    if max_items is not None and len(columns) > max_items:
        columns = np.sort(columns[np.argsort(-popularity[columns], kind="stable")[:max_items]])
    if len(columns) < X.n_items:
        X = _keep_columns(X, columns)
        alive = np.flatnonzero(np.diff(X.indptr))
        X = Rows(np.append(X.indptr[alive], X.nnz), X.indices, X.counts, X.n_items)
        rows = rows[alive]
    n_interactions = int(repeats.sum() if len(columns) == len(repeats) else repeats[columns].sum())
    return Population(X, rows, columns, n_interactions, _active_users(X))


def sample_users(population: Population, user_ids: pa.Array, most_interactions: int, random_state: int) -> np.ndarray:
    """Rows of X, ascending, of a sample of whole users with at most `most_interactions` entries, at least one user.

    Parameters
    ----------
    user_ids : the ids of the population's users, one for each row of X.
    """
    entries = np.diff(population.X.indptr)
    if len(user_ids) != len(entries):
        raise ValueError(f"{len(user_ids):,} ids for {len(entries):,} users.")
    return hashed_sample(user_ids, entries, most_interactions, random_state)


def kept_users(
    user_ids: pa.Array, activity: np.ndarray, max_interactions: int | None, max_users: int | None, random_state: int
) -> np.ndarray:
    """The users within the caps, ascending: of too many interactions a sample, of too many users the busiest."""
    rows = np.arange(len(activity))
    if max_interactions is not None:
        rows = hashed_sample(user_ids, activity, max_interactions, random_state)
    if max_users is not None and len(rows) > max_users:
        rows = np.sort(rows[np.argsort(-activity[rows], kind="stable")[:max_users]])
    return rows


def hashed_sample(user_ids: pa.Array, activity: np.ndarray, most: int, random_state: int) -> np.ndarray:
    """All users if they fit into `most` interactions; else in the order of a keyed hash of their ids as many as fit.

    Whole users are kept, because a user's row is what is compared. The hash makes the sample uniform, and nearly
    the same one again when the data grow.
    """
    if activity.sum() <= most:
        return np.arange(len(activity))
    key = str(random_state).encode()
    digests = np.empty(len(user_ids), ">u8")
    for start in range(0, len(user_ids), 100_000):
        ids = user_ids.slice(start, 100_000).to_pylist()
        together = b"".join(hashlib.blake2b(one.encode(), digest_size=8, key=key).digest() for one in ids)
        digests[start : start + len(ids)] = np.frombuffer(together, ">u8")
    order = np.argsort(digests, kind="stable")
    fitting = int(np.searchsorted(np.cumsum(activity[order]), most, side="right"))
    return np.sort(order[: max(1, fitting)])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _bounds(indptr: np.ndarray, entries: int) -> list[int]:
    """Bounds of successive ranges of rows, each with at most `entries` entries or of one row."""
    bounds = [0]
    while bounds[-1] < len(indptr) - 1:
        start = bounds[-1]
        stop = int(np.searchsorted(indptr, indptr[start] + entries, side="right")) - 1
        bounds.append(max(stop, start + 1))
    return bounds


def _frequencies(codes: np.ndarray, n: int) -> np.ndarray:
    """How often each code below n occurs, int64."""
    total = np.zeros(n, np.int64)
    for start in range(0, len(codes), ROWS_AT_ONCE):
        np.add.at(total, codes[start : start + ROWS_AT_ONCE], 1)
        drop_pages(codes)
    return total


def _count(data: Interactions, rows: np.ndarray, activity: np.ndarray, workspace: Workspace) -> tuple[Rows, np.ndarray]:
    """(the counted pairs of the users `rows`, who have `activity` interactions; the interactions of each item)."""
    offsets = _offsets(activity)
    bounds = _bounds(offsets, PARTITION)
    keys = _partition(data, rows, offsets, bounds, workspace)
    indices, counts = workspace.growing(np.int32), workspace.growing(np.uint16)
    degree = np.empty(len(rows), np.int64)
    by_item = np.zeros(len(data.item_ids), np.int64)
    for first, last in pairwise(bounds):
        pairs, repeats = _distinct(keys[offsets[first] : offsets[last]])
        drop_pages(keys)
        items = (pairs & 0xFFFFFFFF).astype(np.int32)
        degree[first:last] = np.bincount((pairs >> 32) - first, minlength=last - first)
        np.add.at(by_item, items, repeats)
        indices.append(items)
        counts.append(np.minimum(repeats, MOST_REPEATS).astype(np.uint16))
    del keys  # before the arrays are finished: they may take its memory
    return Rows(_offsets(degree), indices.finish(), counts.finish(), len(by_item)), by_item


def _partition(
    data: Interactions, rows: np.ndarray, offsets: np.ndarray, bounds: list[int], workspace: Workspace
) -> np.ndarray:
    """Keys row << 32 | item of the interactions of the users `rows`, int64, at their user's partition in any order.

    Partition p is users bounds[p] to bounds[p + 1], so its keys are at offsets[bounds[p]] to offsets[bounds[p + 1]].
    One sequential pass over the codes, which writes one stream for each partition.
    """
    keys = workspace.array(int(offsets[-1]), np.int64)
    position = np.full(len(data.user_ids), -1, np.int32)
    position[rows] = np.arange(len(rows), dtype=np.int32)
    n = len(bounds) - 1
    partition = np.repeat(np.arange(n, dtype=np.uint16 if n < 2**16 else np.int64), np.diff(bounds))
    filled = offsets[bounds[:-1]]
    for start in range(0, len(data.users), ROWS_AT_ONCE):
        row = position[data.users[start : start + ROWS_AT_ONCE]]
        key = row.astype(np.int64) << 32 | data.items[start : start + ROWS_AT_ONCE]
        if len(rows) < len(position):
            kept = row >= 0
            row, key = row[kept], key[kept]
        into = partition[row]
        key = key[np.argsort(into, kind="stable")]  # a radix sort, for 16 bits
        ends = np.cumsum(np.bincount(into, minlength=n))
        for p, (first, last) in enumerate(pairwise([0, *ends.tolist()])):
            keys[filled[p] : filled[p] + last - first] = key[first:last]
            filled[p] += last - first
        drop_pages(data.users, data.items, keys)
    return keys


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the distinct keys ascending, how often each occurs). More than PARTITION keys are those of a single user."""
    distinct, repeats = np.unique(keys[:PARTITION], return_counts=True)
    for start in range(PARTITION, len(keys), PARTITION):
        more, times = np.unique(keys[start : start + PARTITION], return_counts=True)
        distinct, which = np.unique(np.concatenate([distinct, more]), return_inverse=True)
        total = np.zeros(len(distinct), np.int64)
        np.add.at(total, which, np.concatenate([repeats, times]))
        repeats = total
        drop_pages(keys)
    return distinct, repeats


def _keep_columns(X: Rows, columns: np.ndarray) -> Rows:
    """Only the items `columns`, in place: what is kept moves towards the front of the same arrays."""
    code = np.full(X.n_items, -1, np.int32)
    code[columns] = np.arange(len(columns), dtype=np.int32)
    degree = np.empty(X.n_users, np.int64)
    end = 0
    for start, stop in X.blocks():
        first, last = X.indptr[start], X.indptr[stop]
        items = code[X.indices[first:last]]
        kept = items >= 0
        degree[start:stop] = np.diff(_offsets(kept)[X.indptr[start : stop + 1] - first])
        n = int(np.count_nonzero(kept))
        X.indices[end : end + n] = items[kept]
        X.counts[end : end + n] = X.counts[first:last][kept]
        end += n
    return Rows(_offsets(degree), X.indices[:end], X.counts[:end], len(columns))


def _active_users(X: Rows) -> int:
    """Users with two or more interactions. Every user has at least one entry."""
    active = 0
    for start, stop in X.blocks():
        first, last = X.indptr[start], X.indptr[stop]
        sums = np.add.reduceat(X.counts[first:last], X.indptr[start:stop] - first, dtype=np.int64)
        active += int(np.count_nonzero(sums >= 2))
    return active
