"""Interactions as they come (Arrow, Parquet, CSV), read as a stream into codes: one small integer for each id.

Ids are compared by their canonical text: an integer is its decimal digits, a string is itself. So the seed
id "42" is the user 42, and "042" is somebody else. Codes follow the sorted order of these texts, so that
nothing later depends on the order of the rows. Knows nothing of matrices or models.

Memory does not grow with the rows: their codes are in the workspace, 8 bytes a row. What stays in memory grows with
what is distinct: the texts of the ids and 8 bytes for each, 16 bytes a user for a numerical feature, and 8 bytes for
each distinct pair of a user and a value of a categorical feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whiteroom.engines.lookalike.errors import InteractionsError, SeedError
from whiteroom.engines.lookalike.sources import ROWS_AT_ONCE, Schema, blocks
from whiteroom.engines.lookalike.workspace import Workspace, drop_pages

IDS_AT_ONCE = 8 << 20
"""Ids hashed together, at most; the hash table takes up to 40 bytes an id."""

MOST_IDS = 2**31 - 1
"""Codes are int32."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Interactions:
    """All rows as int32 codes: positions in `user_ids` and `item_ids`, which are sorted large_string arrays."""

    users: np.ndarray
    items: np.ndarray
    user_ids: pa.Array
    item_ids: pa.Array
    categorical: dict[str, tuple[np.ndarray, np.ndarray, pa.Array]] = field(default_factory=dict)
    """For each column: (user codes, value codes, values), each pair of codes at least once."""
    numerical: dict[str, np.ndarray] = field(default_factory=dict)
    """For each column: the mean of each user, float32, NaN where it has none."""


def read_interactions(
    source: Any,
    schema: Schema,
    progress: Progress = lambda _fraction, _text: None,
    *,
    workspace: Workspace,
) -> Interactions:
    """Read everything `source` holds.

    Parameters
    ----------
    source : a pyarrow Table, RecordBatch, RecordBatchReader or dataset; an iterable of RecordBatches; anything with
        `__arrow_c_stream__` (pandas, polars); or one path or a list of paths of Parquet (.parquet) or CSV files.
    workspace : where the codes of the rows are kept.

    Raises
    ------
    InteractionsError : no rows, a missing column, an id that is null, NaN or empty, a type that is no id or
        feature, or more than 2^31 - 1 distinct ids.
    MemoryLimitError : the distinct ids alone need more memory than the workspace may use, or the disk is full.
    """
    users, items = _Dictionary(schema.user_id, workspace), _Dictionary(schema.item_id, workspace)
    user_codes, item_codes = workspace.growing(np.int32), workspace.growing(np.int32)
    categorical = {name: Categories(name, workspace) for name in schema.categorical}
    numerical = {name: Means(name) for name in schema.numerical}
    for block in blocks(source, schema):
        by_user = users.codes(canonical_texts(block[schema.user_id], schema.user_id))
        user_codes.append(by_user)
        item_codes.append(items.codes(canonical_texts(block[schema.item_id], schema.item_id)))
        for name, values in categorical.items():
            values.add(block[name].combine_chunks(), by_user)
        for name, sums in numerical.items():
            sums.add(block[name], by_user, len(users))
        progress(0.0, f"{len(user_codes):,} interactions read")
        del block  # or it would stay until the next one is there
        pa.default_memory_pool().release_unused()
    if not len(user_codes):
        raise InteractionsError("The interactions hold no rows.")
    user_ids, user_ranks = users.finish()
    item_ids, item_ranks = items.finish()
    pa.default_memory_pool().release_unused()
    return Interactions(
        users=_in_order(user_codes.finish(), user_ranks),
        items=_in_order(item_codes.finish(), item_ranks),
        user_ids=user_ids,
        item_ids=item_ids,
        categorical={name: values.finish(user_ranks) for name, values in categorical.items()},
        numerical={name: sums.finish(user_ranks) for name, sums in numerical.items()},
    )


def _in_order(codes: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Codes in the order of arrival turned into positions among the sorted ids, in place."""
    for start in range(0, len(codes), ROWS_AT_ONCE):
        codes[start : start + ROWS_AT_ONCE] = ranks[codes[start : start + ROWS_AT_ONCE]]
        drop_pages(codes)
    return codes


def canonical_seed(seed_ids: Any) -> pa.Array:
    """The distinct ids of a seed (strings, integers, or an Arrow array of either) as large_string, in first order."""
    try:
        if isinstance(seed_ids, (str, bytes)):
            raise SeedError("A seed is a list of ids, not one string.")
        if isinstance(seed_ids, pa.ChunkedArray):
            seed_ids = seed_ids.combine_chunks()
        if not isinstance(seed_ids, pa.Array):
            seed_ids = pa.array([_text(value) for value in seed_ids], pa.large_string())
        if seed_ids.null_count:
            raise SeedError("The seed holds a null, which is no id.")
        seed = canonical_texts(pa.chunked_array([seed_ids]), "user_id").unique()
        check_not_empty(seed, "user_id")
        return seed
    except (InteractionsError, TypeError, UnicodeEncodeError) as error:
        raise SeedError(f"The seed holds something that is no id: {error}") from error


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    raise SeedError(f"{value!r} is no id; ids are strings or integers.")


def check_id_type(kind: pa.DataType, column: str) -> None:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    allowed = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_null,
    )
    if not any(is_kind(kind) for is_kind in allowed):
        raise InteractionsError(f"Column {column} is {kind}; ids are strings or integers.")


def canonical_texts(values: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """Ids as their canonical text. Floats that are whole numbers count as integers: nulls make them so."""
    check_id_type(values.type, column)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count:
        raise InteractionsError(f"Column {column} holds a null id.")
    try:
        if pa.types.is_floating(values.type):
            if not pc.all(pc.is_finite(values)).as_py():
                raise InteractionsError(f"Column {column} holds NaN or infinity where an id is needed.")
            values = values.cast(pa.int64())
        return values.cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise InteractionsError(f"Column {column} holds something that is no id: {error}") from error


def check_not_empty(ids: pa.Array, column: str) -> None:
    if pc.any(pc.equal(ids, "")).as_py():
        raise InteractionsError(f"Column {column} holds an empty id.")


class _Dictionary:
    """The distinct texts of a column. The code of a text is its position in the order of arrival until `finish`.

    The texts are in segments, because a lookup builds a hash table of one segment at a time.
    """

    def __init__(self, column: str, workspace: Workspace, *, empty: bool = False) -> None:
        self.column = column
        self.empty = empty
        self.workspace = workspace
        self.segments: list[pa.Array] = []

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    def codes(self, texts: pa.ChunkedArray) -> np.ndarray:
        """int32 codes of texts without nulls; texts not met before get new ones."""
        codes = np.empty(len(texts), np.int32)
        unknown: Any = slice(None)
        first = 0
        for segment in self.segments:
            found = pc.fill_null(pc.index_in(texts, value_set=segment), -1).to_numpy()
            codes[unknown] = np.where(found < 0, -1, found + np.int32(first))
            unknown = np.flatnonzero(codes < 0)
            if not len(unknown):
                return codes
            texts = texts.filter(pa.array(found < 0))
            first += len(segment)
        encoded = texts.dictionary_encode().combine_chunks()
        codes[unknown] = encoded.indices.to_numpy() + np.int32(first)
        self._append(encoded.dictionary)
        return codes

    def finish(self) -> tuple[pa.Array, np.ndarray]:
        """(the distinct texts sorted, the position of each code's text among them); the segments are given up."""
        together = pa.concat_arrays(self.segments or [pa.array([], pa.large_string())])
        self.segments = []
        order = pc.array_sort_indices(together).to_numpy(zero_copy_only=False)
        ranks = np.empty(len(order), np.int32)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        return together.take(pa.array(order)), ranks

    def _append(self, new: pa.Array) -> None:
        if not self.empty:
            check_not_empty(new, self.column)
        if len(self) + len(new) > MOST_IDS:
            raise InteractionsError(
                f"Column {self.column} holds more than {MOST_IDS:,} distinct values. Leave out rare ones."
            )
        self.workspace.charge(
            new.nbytes, f"The distinct ids and values (column {self.column} has {len(self):,} so far)"
        )
        if self.segments and len(self.segments[-1]) + len(new) <= IDS_AT_ONCE:
            new = pa.concat_arrays([self.segments.pop(), new])
        self.segments.append(new)


class Categories:
    """The distinct (user, value) pairs of one categorical column."""

    def __init__(self, column: str, workspace: Workspace) -> None:
        self.column = column
        self.workspace = workspace
        self.values = _Dictionary(column, workspace, empty=True)
        self.pairs = np.empty(0, np.int64)
        self.waiting: list[np.ndarray] = []

    def add(self, array: pa.Array, users: np.ndarray) -> None:
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            users = users[pc.list_parent_indices(array).to_numpy(zero_copy_only=False)]
            array = pc.list_flatten(array)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_null(array.type):
            array = array.cast(pa.large_string())
        if pa.types.is_nested(array.type) or pa.types.is_temporal(array.type):
            raise InteractionsError(
                f"Column {self.column} is {array.type}; a categorical feature is string, integer, float, boolean or a "
                "list."
            )
        known = array.is_valid()
        if pa.types.is_floating(array.type):
            known = pc.and_(known, pc.fill_null(pc.invert(pc.is_nan(array)), False))
        encoded = array.filter(known).dictionary_encode()
        codes = self.values.codes(pa.chunked_array([encoded.dictionary.cast(pa.large_string())]))
        codes = codes[encoded.indices.to_numpy(zero_copy_only=False)]
        pairs = users[known.to_numpy(zero_copy_only=False)].astype(np.int64) << 32 | codes
        self.waiting.append(sorted_distinct(pairs))
        if sum(map(len, self.waiting)) > max(len(self.pairs), ROWS_AT_ONCE):
            self._merge()

    def finish(self, user_ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray, pa.Array]:
        self._merge()
        values, value_ranks = self.values.finish()
        return user_ranks[self.pairs >> 32], value_ranks[self.pairs & 0xFFFFFFFF], values

    def _merge(self) -> None:
        """Merged when as many pairs wait as are known, so that all merging together takes linear time."""
        known = len(self.pairs)
        self.pairs = sorted_distinct(np.concatenate([self.pairs, *self.waiting]))
        self.waiting = []
        grown = self.pairs.itemsize * (len(self.pairs) - known)
        self.workspace.charge(grown, f"The values of the users in column {self.column} ({len(self.pairs):,} so far)")


def sorted_distinct(numbers: np.ndarray) -> np.ndarray:
    """The distinct numbers, ascending. The array is sorted in place; np.unique hashes, a hundred times slower."""
    numbers.sort()
    first = np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]
    distinct: np.ndarray = numbers[first]
    return distinct


class Means:
    """The sum and the count of one numerical column, by user."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.sums: np.ndarray = np.empty(0)
        self.counts: np.ndarray = np.empty(0, np.int64)

    def add(self, array: pa.ChunkedArray, users: np.ndarray, n_users: int) -> None:
        if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type)):
            raise InteractionsError(f"Column {self.column} is {array.type}; a numerical feature is integer or float.")
        values = pc.fill_null(array.cast(pa.float64(), safe=False), float("nan")).to_numpy()
        known = np.isfinite(values)
        # Without a number known, bincount gives integers.
        sums = np.bincount(users[known], values[known], minlength=n_users).astype(np.float64, copy=False)
        counts = np.bincount(users[known], minlength=n_users)
        sums[: len(self.sums)] += self.sums
        counts[: len(self.counts)] += self.counts
        self.sums, self.counts = sums, counts

    def finish(self, user_ranks: np.ndarray) -> np.ndarray:
        # float32 hides the last bits of the float64 sums, which depend on the order of the rows.
        means = np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)
        ordered = np.empty(len(means), np.float32)
        ordered[user_ranks] = means
        return ordered
