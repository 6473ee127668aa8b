"""What Spark's executors do to Arrow batches: each step by the functions of the one-machine engine. Knows no Spark."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from whiteroom.engines.lookalike.embedding import Embedding, one_blas_thread
from whiteroom.engines.lookalike.interactions import canonical_texts, check_not_empty
from whiteroom.engines.lookalike.matrix import WEIGHTS, Rows
from whiteroom.engines.lookalike.report import coverage_of
from whiteroom.engines.lookalike.sources import Schema
from whiteroom.engines.lookalike.space import UserSpace

Batches = Iterator[pa.RecordBatch]

ROW_BITS = 33
"""`monotonically_increasing_id` is the number of a partition, and in so many lower bits that of a row in it."""


def canonical(schema: Schema, batches: Batches) -> Batches:
    """user_id and item_id, where they are, as canonical texts."""
    for batch in batches:
        for name, column in (("user_id", schema.user_id), ("item_id", schema.item_id)):
            if (at := batch.schema.get_field_index(name)) >= 0:
                texts = canonical_texts(pa.chunked_array([batch[name]]), column).combine_chunks()
                check_not_empty(texts, column)
                batch = batch.set_column(at, name, texts.cast(pa.string()))
        yield batch


def encoded(embedding: Any, first_rows: np.ndarray, n_items: int, n_features: int, batches: Batches) -> Batches:
    learned: Embedding = pickle.loads(embedding.value)  # noqa: S301 - what this program pickled
    for batch in batches:
        F = sp.csr_matrix((len(batch), 0), dtype=np.float32)
        if n_features:
            F = _csr(batch["columns"], batch["weights"].flatten().to_numpy(), n_features)
        numbers = learned.encode(counts(batch, n_items), F, threads=1)
        ids = batch["id"].to_numpy()
        rows = first_rows[ids >> ROW_BITS] + (ids & ((1 << ROW_BITS) - 1))
        yield pa.record_batch([rows, batch["user_id"], _blobs(numbers)], names=["row", "user_id", "vector"])


def quantized(precision: str, scale: np.ndarray, batches: Batches) -> Batches:
    for batch in batches:
        numbers = vectors(batch, np.float32)
        numbers = np.rint(numbers / scale) if precision == "int8" else numbers
        yield batch.set_column(2, "vector", _blobs(numbers.astype(precision)))


def covered(shared: Any, n_items: int, batches: Batches) -> Batches:
    columns = pickle.loads(shared.value)  # noqa: S301 - what this program pickled
    for batch in batches:
        X = counts(batch, n_items)
        repeats = batch["counts"].flatten().to_numpy()
        rows = Rows(X.indptr.astype(np.int64), X.indices, repeats.astype(np.uint16), n_items)
        _, share, blank = coverage_of(rows, columns)
        n = int(repeats.sum())
        yield pa.record_batch([[n], [share * n], [blank]], names=["n", "covered", "blank"])


def moments(size: int, batches: Batches) -> Batches:
    total, gram, largest = np.zeros(size), np.zeros((size, size)), np.zeros(size)
    for batch in batches:
        part = vectors(batch, np.float32)
        total += part.sum(axis=0, dtype=np.float64)
        largest = np.maximum(largest, np.abs(part).max(axis=0, initial=0))
        with one_blas_thread():
            gram += part.T @ part
    sums = [[one.tobytes()] for one in (total, gram, largest)]
    yield pa.record_batch(sums, names=["total", "gram", "largest"])


def scored(space: UserSpace, weights: np.ndarray, dtype: np.dtype, batches: Batches) -> Batches:
    for batch in batches:
        scores = replace(space, vectors=vectors(batch, dtype)).scores(weights, threads=1)
        yield pa.record_batch([batch["row"], batch["user_id"], scores], names=["row", "user_id", "score"])


def packed(batches: Batches) -> Batches:
    """Each batch as one value: Spark hands the driver one row at a time, as Python objects."""
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        yield pa.record_batch([[sink.getvalue().to_pybytes()]], names=["batch"])


def _blobs(numbers: np.ndarray) -> pa.Array:
    return pa.array([vector.tobytes() for vector in numbers], pa.binary())


def vectors(batch: pa.RecordBatch | pa.Table, dtype: Any) -> np.ndarray:
    """The batch's vectors; at least one."""
    return np.frombuffer(b"".join(batch["vector"].to_pylist()), dtype).reshape(len(batch), -1)


def counts(batch: pa.RecordBatch, n_items: int) -> sp.csr_matrix:
    """X as `Embedding.encode` takes it."""
    return _csr(batch["items"], WEIGHTS[batch["counts"].flatten().to_numpy()], n_items)


def _csr(columns: pa.ListArray, data: np.ndarray, n_columns: int) -> sp.csr_matrix:
    indptr = np.concatenate([[0], np.cumsum(pc.list_value_length(columns).to_numpy())])
    return sp.csr_matrix((data, columns.flatten().to_numpy(), indptr), shape=(len(columns), n_columns))
