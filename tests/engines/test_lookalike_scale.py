"""Counting interactions out of core gives what counting in memory gives, whatever the sizes of the pieces."""

from __future__ import annotations

import errno
import gc
import os
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from whiteroom.engines.lookalike import InteractionsError, Schema, interactions, matrix, sources, workspace
from whiteroom.engines.lookalike.errors import MemoryLimitError
from whiteroom.engines.lookalike.interactions import Interactions, read_interactions
from whiteroom.engines.lookalike.matrix import MOST_REPEATS, Population, Rows, build_population, sample_users
from whiteroom.engines.lookalike.workspace import Workspace, drop_pages

NO_CAPS: dict[str, Any] = {"max_interactions": None, "max_users": None, "max_items": None, "random_state": 0}


@contextmanager
def pieces_of(size: int) -> Iterator[None]:
    """All that is done piece by piece is done by pieces of this size."""
    with pytest.MonkeyPatch.context() as patch:
        for module, names in {
            sources: ("ROWS_AT_ONCE", "BYTES_AT_ONCE", "SLICE"),
            interactions: ("ROWS_AT_ONCE", "IDS_AT_ONCE"),
            matrix: ("ROWS_AT_ONCE", "PARTITION"),
            workspace: ("PIECE_BYTES",),
        }.items():
            for name in names:
                patch.setattr(module, name, max(size, 8) if name == "PIECE_BYTES" else size)
        yield


def coded(users: np.ndarray, items: np.ndarray) -> Interactions:
    """Interactions as if read: the codes are the positions of the distinct values."""
    user_ids, users = np.unique(users, return_inverse=True)
    item_ids, items = np.unique(items, return_inverse=True)
    text = [pa.array([f"{one:09d}" for one in ids], pa.large_string()) for ids in (user_ids, item_ids)]
    return Interactions(users.astype(np.int32), items.astype(np.int32), *text)


def build(data: Interactions, memory: int = 1 << 30, **caps: Any) -> Population:
    with Workspace(memory=memory) as room:
        return build_population(data, workspace=room, **(NO_CAPS | caps))


def whole(rows: Rows) -> sp.csr_matrix:
    return rows.block(0, rows.n_users)


def in_memory(data: Interactions, max_users: int | None, max_items: int | None) -> tuple[sp.csr_matrix, Any, Any]:
    """The definition: (counts, rows, columns) of one scipy matrix of everything."""
    shape = len(data.user_ids), len(data.item_ids)
    counts = sp.csr_matrix((np.ones(len(data.users)), (data.users, data.items)), shape=shape)
    counts.sum_duplicates()
    activity = np.asarray(counts.sum(axis=1)).ravel()
    rows = np.sort(np.argsort(-activity, kind="stable")[:max_users])
    counts = counts[rows]
    popularity = np.bincount(counts.indices, minlength=counts.shape[1])
    columns = np.flatnonzero(popularity)
    columns = np.sort(columns[np.argsort(-popularity[columns], kind="stable")[:max_items]])
    counts = counts[:, columns].tocsr()
    alive = np.flatnonzero(np.diff(counts.indptr))
    return counts[alive], rows[alive], columns


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=120),
    size=st.integers(1, 40),
    memory=st.sampled_from([0, 100, 700, 1 << 20]),
    max_users=st.none() | st.integers(1, 8),
    max_items=st.none() | st.integers(1, 8),
)
def test_counting_by_pieces_and_on_disk_equals_one_matrix(
    pairs: list[tuple[int, int]], size: int, memory: int, max_users: int | None, max_items: int | None
) -> None:
    data = coded(*np.array(pairs).T)
    counts, rows, columns = in_memory(data, max_users, max_items)
    with pieces_of(size):
        got = build(data, memory, max_users=max_users, max_items=max_items)
        taken = got.X.take(np.arange(0, got.X.n_users, 2))
    np.testing.assert_array_equal(got.rows, rows)
    np.testing.assert_array_equal(got.columns, columns)
    expected = counts.astype(np.float32)
    expected.data = 1 + np.log(expected.data)
    np.testing.assert_array_equal(whole(got.X).toarray(), expected.toarray())
    np.testing.assert_array_equal(taken.toarray(), expected[::2].toarray())
    assert got.X.nnz == counts.nnz
    assert got.n_interactions == counts.sum()
    assert got.n_active_users == np.count_nonzero(counts.sum(axis=1) >= 2)


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=40),
    size=st.integers(1, 30),
    state=st.randoms(use_true_random=False),
)
def test_reading_does_not_depend_on_order_or_pieces(pairs: list[tuple[str, str]], size: int, state: Any) -> None:
    def read(pairs: list[tuple[str, str]]) -> Interactions:
        table = pa.table({"user_id": [u for u, _ in pairs], "item_id": [i for _, i in pairs]})
        with Workspace(memory=0) as room:
            return read_interactions(table, Schema(), workspace=room)

    shuffled = state.sample(pairs, len(pairs))
    with pieces_of(size):
        data, other = read(pairs), read(shuffled)
    assert data.user_ids.to_pylist() == sorted({u for u, _ in pairs}, key=str.encode)
    assert data.item_ids.to_pylist() == sorted({i for _, i in pairs}, key=str.encode)
    assert data.user_ids.take(pa.array(data.users)).to_pylist() == [u for u, _ in pairs]
    assert data.item_ids.take(pa.array(data.items)).to_pylist() == [i for _, i in pairs]
    assert other.user_ids.equals(data.user_ids)
    assert other.user_ids.take(pa.array(other.users)).to_pylist() == [u for u, _ in shuffled]


def test_features_do_not_depend_on_order_or_pieces() -> None:
    rng = np.random.default_rng(0)
    n = 3000
    table = pa.table(
        {
            "user_id": rng.integers(0, 50, n),
            "item_id": rng.integers(0, 20, n),
            "kind": pa.array([None if k < 3 else f"k{k}" for k in rng.integers(0, 40, n)]),
            "tags": pa.array([None if k == 0 else [f"t{j}" for j in range(k - 1)] for k in rng.integers(0, 5, n)]),
            "level": pa.array([None if k < 0 else k for k in rng.integers(-2, 9, n)]),
            "age": pa.array(np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 90, n))),
        }
    )
    schema = Schema(categorical=("kind", "tags"), numerical=("level", "age"))

    def read(table: pa.Table) -> Interactions:
        return read_interactions(table, schema, workspace=Workspace())

    def pairs(data: Interactions, name: str) -> set[tuple[str, str]]:
        users, codes, values = data.categorical[name]
        names = data.user_ids.take(pa.array(users)).to_pylist()
        got = list(zip(names, values.take(pa.array(codes)).to_pylist(), strict=True))
        assert len(set(got)) == len(got)
        return set(got)

    expected = read(table)
    with pieces_of(97):
        got = read(table.take(pa.array(rng.permutation(n))))
    assert pairs(expected, "kind") == {
        (str(u), k) for u, k in zip(table["user_id"].to_pylist(), table["kind"].to_pylist(), strict=True) if k
    }
    for name in schema.categorical:
        assert pairs(got, name) == pairs(expected, name)
        assert got.categorical[name][2].equals(expected.categorical[name][2])
    for name in schema.numerical:
        np.testing.assert_array_equal(got.numerical[name], expected.numerical[name])
    frame = table.select(["user_id", "age"]).to_pandas()
    means = frame.groupby(frame["user_id"].astype(str))["age"].mean().sort_index()
    np.testing.assert_allclose(expected.numerical["age"], means, rtol=1e-6)


def test_a_feature_without_a_value_in_the_first_rows_is_read() -> None:
    table = pa.table(
        {
            "user_id": [1, 1, 2, 1],
            "item_id": [1, 2, 1, 3],
            "age": pa.array([None, None, 20.0, 31.0]),
            "kind": pa.array([None, None, "a", "b"]),
        }
    )
    with pieces_of(2):
        data = read_interactions(table, Schema(categorical=("kind",), numerical=("age",)), workspace=Workspace())
    assert data.numerical["age"].tolist() == [31.0, 20.0]
    users, codes, values = data.categorical["kind"]
    assert dict(zip(users.tolist(), values.take(pa.array(codes)).to_pylist(), strict=True)) == {0: "b", 1: "a"}


def test_more_values_of_a_feature_than_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "ALWAYS_ALLOWED", 1000)
    table = pa.table({"user_id": [1] * 500, "item_id": [1] * 500, "kind": np.arange(500) % 100})
    read_interactions(table, Schema(categorical=("kind",)), workspace=Workspace(memory=3000))
    users = table.set_column(0, "user_id", pa.array(np.arange(500) % 7))
    with pytest.raises(MemoryLimitError, match=r"values of the users in column kind"):
        read_interactions(users, Schema(categorical=("kind",)), workspace=Workspace(memory=3000))


def test_repeats_count_as_one_plus_log() -> None:
    population = build(coded(np.array([1, 1, 1, 1, 1, 2]), np.array([1, 1, 1, 2, 1, 1])))
    assert population.n_interactions == 6
    assert population.n_active_users == 1
    np.testing.assert_allclose(whole(population.X).toarray(), [[1 + np.log(4), 1], [1, 0]], rtol=1e-6)
    assert whole(population.X).dtype == np.float32


def test_one_user_with_very_many_rows_is_counted_and_its_weight_is_bounded() -> None:
    users = np.append(np.zeros(1_000_000, int), 1)
    items = np.append(np.repeat([0, 1], [999_990, 10]), 1)
    with pieces_of(70_000):
        population = build(coded(users, items), memory=0)
    assert population.n_interactions == 1_000_001
    np.testing.assert_allclose(
        whole(population.X).toarray(), [[1 + np.log(MOST_REPEATS), 1 + np.log(10)], [0, 1]], rtol=1e-6
    )


def test_memory_does_not_grow_with_the_rows() -> None:
    rng = np.random.default_rng(0)

    def batches(rows: int) -> Iterator[pa.RecordBatch]:
        for _ in range(0, rows, 50_000):
            yield pa.record_batch({"user_id": rng.integers(0, 2000, 50_000), "item_id": rng.integers(0, 500, 50_000)})

    def peak(rows: int) -> int:
        tracemalloc.start()
        with Workspace(memory=0) as room:
            data = read_interactions(batches(rows), Schema(), workspace=room)
            population = build_population(data, workspace=room, **NO_CAPS)
            for start, stop in population.X.blocks(50_000):
                population.X.block(start, stop)
        assert population.n_interactions == rows
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    with pieces_of(50_000):
        peak(50_000)  # imports
        small, large = peak(200_000), peak(2_000_000)
    assert large < small + 10e6  # codes and keys of all rows in memory would be 30 MB more


def test_caps_keep_whole_users_the_busiest_and_the_most_popular() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 400, 6000), rng.integers(0, 300, 6000) ** 2 // 300
    data = coded(np.append(users, np.full(60, 400)), np.append(items, np.arange(60)))
    everything = build(data)
    activity = np.bincount(data.users)
    sampled = build(data, max_interactions=3000)
    assert 2900 < sampled.n_interactions <= 3000
    assert sampled.n_interactions == activity[sampled.rows].sum()
    np.testing.assert_array_equal(
        whole(sampled.X).toarray(), whole(everything.X).toarray()[sampled.rows][:, sampled.columns]
    )
    assert not np.array_equal(sampled.rows, build(data, max_interactions=3000, random_state=1).rows)
    grown = coded(np.append(data.users, 500), np.append(data.items, 0))
    again = build(grown, max_interactions=3000).rows
    assert len(np.setxor1d(again, sampled.rows)) <= 2, "the sample stays nearly the same when the data grow"

    busiest = build(data, max_users=100)
    assert len(busiest.rows) == 100
    assert activity[busiest.rows].min() >= np.delete(activity, busiest.rows).max()
    popular = build(data, max_items=50)
    popularity = np.bincount(everything.X.indices)
    assert len(popular.columns) == 50
    assert popularity[popular.columns].min() >= np.delete(popularity, popular.columns).max()


def test_users_left_without_an_item_disappear() -> None:
    population = build(coded(np.array([0, 1, 2, 3]), np.array([0, 0, 0, 1])), max_items=1)
    assert population.rows.tolist() == [0, 1, 2]
    assert population.n_interactions == 3
    assert population.X.n_users == 3


def test_all_items_unique_and_one_item_for_all() -> None:
    unique = build(coded(np.arange(5000), np.arange(5000)), memory=0)
    assert (whole(unique.X) != sp.eye(5000)).nnz == 0
    one = build(coded(np.arange(5000), np.zeros(5000, int)), memory=0)
    assert (one.X.n_users, one.X.n_items, one.X.nnz) == (5000, 1, 5000)


def test_blocks_cover_all_users_once_in_pieces_of_about_the_size_asked_for() -> None:
    rng = np.random.default_rng(0)
    degree = rng.integers(1, 30, 1000)
    degree[[3, 999]] = 290
    users = np.repeat(np.arange(1000), degree)
    population = build(coded(users, np.concatenate([np.arange(d) for d in degree])), memory=0)
    rows = population.X
    bounds = list(rows.blocks(200))
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == 1000
    assert all(rows.indptr[stop] - rows.indptr[start] <= 200 or stop == start + 1 for start, stop in bounds)
    assert len(bounds) < 1.5 * rows.nnz / 200
    together = sp.vstack([rows.block(start, stop) for start, stop in bounds], format="csr")
    assert (together != whole(rows)).nnz == 0
    assert together.has_sorted_indices


def test_a_sample_of_users_is_bounded_whole_and_drawn_by_id() -> None:
    rng = np.random.default_rng(0)
    population = build(coded(rng.integers(0, 300, 5000), rng.integers(0, 100, 5000)))
    ids = pa.array([f"u{row}" for row in range(300)], pa.large_string())
    rows = sample_users(population, ids, 1000, 0)
    assert np.all(np.diff(rows) > 0)
    assert 950 < population.X.take(rows).nnz <= 1000
    assert len(sample_users(population, ids, 0, 0)) == 1
    assert sample_users(population, ids, population.X.nnz, 0).tolist() == list(range(300))
    other = sample_users(population, ids, 1000, 1)
    assert 0 < len(np.intersect1d(rows, other)) < len(rows)
    # The sample is uniform: it holds early and late ids alike.
    assert 100 < rows.mean() < 200
    with pytest.raises(ValueError, match="10 ids for 300 users"):
        sample_users(population, ids[:10], 1000, 0)


def test_arrays_are_in_memory_while_they_fit_and_give_it_back() -> None:
    with Workspace(memory=1000) as room:
        first = room.array((10, 10), np.float64)
        second = room.array(100, np.float32)
        assert not isinstance(first, np.memmap)
        assert isinstance(second, np.memmap)
        assert second.shape == (100,) and second.dtype == np.float32
        second[:] = np.arange(100)
        drop_pages(first, second, second[10:20])
        np.testing.assert_array_equal(second, np.arange(100))
        view = first[2:]
        del first
        gc.collect()
        assert isinstance(room.array(100, np.float64), np.memmap), "a view holds the memory"
        del view
        gc.collect()
        assert not isinstance(room.array(100, np.float64), np.memmap)
    np.testing.assert_array_equal(second, np.arange(100))
    with pytest.raises(ValueError, match="closed"):
        room.array(10, np.int8)


@pytest.mark.parametrize("memory", [0, 40, 200, 10_000])
def test_a_growing_array_keeps_what_is_appended(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "PIECE_BYTES", 64)
    pieces = [np.arange(n, dtype=np.int64) * n for n in (0, 3, 1, 50, 7, 0, 20)]
    with Workspace(memory=memory) as room:
        growing = room.growing(np.int32)
        for piece in pieces:
            growing.append(piece)
        assert len(growing) == 81
        got = growing.finish()
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, np.concatenate(pieces))
        assert isinstance(got, np.memmap) == (memory < 324)
        got[0] = 5
        assert room.used == (0 if memory < 324 else 324)
        assert len(room.growing(np.int32).finish()) == 0


def test_files_have_no_name_that_a_crash_could_leave_behind(tmp_path: Path) -> None:
    room = Workspace(tmp_path, memory=0)
    array = room.array(1000, np.int64)
    growing = room.growing(np.int64)
    growing.append(np.arange(1000))
    assert list(tmp_path.iterdir()) == []
    array[:] = growing.finish()
    assert array.sum() == 499_500


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    room = Workspace(tmp_path, memory=0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    growing = room.growing(np.int64)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(MemoryLimitError, match="no room left"):
            growing.append(np.zeros(100_000))
        with pytest.raises(MemoryLimitError, match="no room left"):
            room.array(100_000, np.int64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MemoryLimitError, match="no room left"):
        room.array(100, np.int64)
    with pytest.raises(MemoryLimitError, match="Cannot make a file"):
        Workspace(tmp_path / "missing", memory=0).array(100, np.int64)


def test_more_ids_than_codes_or_than_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"user_id": np.arange(1000), "item_id": np.zeros(1000, int)})
    monkeypatch.setattr(workspace, "ALWAYS_ALLOWED", 1000)
    with pytest.raises(MemoryLimitError, match=r"column user_id.*allow more memory"):
        read_interactions(table, Schema(), workspace=Workspace(memory=5000))
    monkeypatch.setattr(interactions, "MOST_IDS", 999)
    with pytest.raises(InteractionsError, match="user_id holds more than 999 distinct values"):
        read_interactions(table, Schema(), workspace=Workspace())
