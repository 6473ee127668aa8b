"""Interactions as they come (Arrow, Parquet, CSV), read as a stream into codes: one small integer for each id.

Ids are compared by their canonical text: an integer is its decimal digits, a string is itself. So the seed
id "42" is the user 42, and "042" is somebody else. Codes follow the sorted order of these texts, so that
nothing later depends on the order of the rows. Knows nothing of matrices or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whiteroom.engines.lookalike.errors import InteractionsError, SeedError

ROWS_AT_ONCE = 1_000_000
"""Rows encoded together: larger blocks repeat fewer ids, smaller ones need less memory."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Schema:
    """Which columns mean what. Columns that are not named here are not read.

    Attributes
    ----------
    user_id, item_id : columns of strings or integers, without nulls.
    categorical : columns of strings, integers, floats, booleans, or lists of these; a user has every value that
        any of its rows has. Nulls mean no value.
    numerical : columns of integers or floats; a user's value is the mean over its rows. Nulls, NaN and infinities
        mean no value.
    """

    user_id: str = "user_id"
    item_id: str = "item_id"
    categorical: tuple[str, ...] = ()
    numerical: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys((self.user_id, self.item_id, *self.categorical, *self.numerical)))


@dataclass(frozen=True)
class Interactions:
    """All rows as codes. `user_ids` and `item_ids` are sorted large_string arrays; a code is a position in them."""

    users: np.ndarray
    items: np.ndarray
    user_ids: pa.Array
    item_ids: pa.Array
    categorical: dict[str, tuple[np.ndarray, np.ndarray, pa.Array]] = field(default_factory=dict)
    """For each column: (user codes, value codes, values), each pair of codes at least once."""
    numerical: dict[str, np.ndarray] = field(default_factory=dict)
    """For each column: the mean of each user, float32, NaN where it has none."""


def read_interactions(source: Any, schema: Schema, progress: Progress = lambda _fraction, _text: None) -> Interactions:
    """Read everything `source` holds.

    Parameters
    ----------
    source : a pyarrow Table, RecordBatch, RecordBatchReader or dataset; an iterable of RecordBatches; anything with
        `__arrow_c_stream__` (pandas, polars); or one path or a list of paths of Parquet (.parquet) or CSV files.

    Raises
    ------
    InteractionsError : no rows, a missing column, an id that is null, NaN or empty, or a type that is no id or
        feature.
    """
    users, items = _Encoder(), _Encoder()
    categorical = {name: _Categorical() for name in schema.categorical}
    numerical = {name: _Numerical() for name in schema.numerical}
    rows = 0
    for block in _blocks(_batches(source, schema), schema):
        local_users = users.add(block[schema.user_id], schema.user_id)
        items.keep(items.add(block[schema.item_id], schema.item_id))
        for name, values in categorical.items():
            values.add(block[name], name, local_users)
        for name, sums in numerical.items():
            sums.add(block[name], name, local_users, users.sizes[-1])
        users.keep(local_users)
        rows += len(local_users)
        progress(0.0, f"{rows:,} interactions read")
    if rows == 0:
        raise InteractionsError("The interactions hold no rows.")
    user_ids, user_maps = users.unify()
    item_ids, item_maps = items.unify()
    return Interactions(
        users=users.codes(user_maps),
        items=items.codes(item_maps),
        user_ids=user_ids,
        item_ids=item_ids,
        categorical={name: values.finish(user_maps) for name, values in categorical.items()},
        numerical={name: sums.finish(user_maps, len(user_ids)) for name, sums in numerical.items()},
    )


def canonical_seed(seed_ids: Any) -> pa.Array:
    """The distinct ids of a seed (strings, integers, or an Arrow array of either) as large_string, in first order."""
    try:
        if isinstance(seed_ids, (str, bytes)):
            raise SeedError("A seed is a list of ids, not one string.")
        if isinstance(seed_ids, pa.ChunkedArray):
            seed_ids = seed_ids.combine_chunks()
        if not isinstance(seed_ids, pa.Array):
            seed_ids = pa.array([_text(value) for value in seed_ids], pa.large_string())
        _check_id_type(seed_ids.type, "user_id")
        if seed_ids.null_count:
            raise SeedError("The seed holds a null, which is no id.")
        return _canonical(_encode(seed_ids)[1], "user_id").unique()
    except (InteractionsError, TypeError, UnicodeEncodeError) as error:
        raise SeedError(f"The seed holds something that is no id: {error}") from error


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    raise SeedError(f"{value!r} is no id; ids are strings or integers.")


def _batches(source: Any, schema: Schema) -> Iterable[pa.RecordBatch]:
    import pyarrow.dataset as ds

    if isinstance(source, (str, Path)) or (
        isinstance(source, (list, tuple)) and source and all(isinstance(one, (str, Path)) for one in source)
    ):
        return _file_batches(source, schema)
    if isinstance(source, ds.Dataset):
        _check_columns(source.schema.names, schema)
        return source.to_batches(columns=schema.columns)  # type: ignore[no-any-return]
    if isinstance(source, pa.RecordBatch):
        return [source]
    if isinstance(source, pa.Table):
        return source.to_batches()  # type: ignore[no-any-return]
    if hasattr(source, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(source)  # type: ignore[no-any-return]
    if isinstance(source, Iterable):
        return source
    raise InteractionsError(f"Interactions cannot be read from a {type(source).__name__}.")


def _file_batches(source: Any, schema: Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow.csv as csv
    import pyarrow.dataset as ds

    paths = [str(one) for one in ([source] if isinstance(source, (str, Path)) else source)]
    # A CSV id such as 007 is text; left to itself, Arrow would read the number 7.
    ids_as_text = csv.ConvertOptions(column_types={schema.user_id: pa.string(), schema.item_id: pa.string()})
    is_csv = paths[0].endswith((".csv", ".csv.gz"))
    try:
        files = ds.dataset(
            paths if len(paths) > 1 else paths[0],
            format=ds.CsvFileFormat(convert_options=ids_as_text) if is_csv else "parquet",
        )
        _check_columns(files.schema.names, schema)
        yield from files.to_batches(columns=schema.columns)
    except OSError as error:
        raise InteractionsError(f"Cannot read the interactions: {error}") from error


def _check_columns(names: Iterable[str], schema: Schema) -> None:
    names = list(names)
    missing = [name for name in schema.columns if name not in names]
    if missing:
        raise InteractionsError(
            f"The interactions have no column {', '.join(missing)}; they have {', '.join(names) or 'none'}."
        )


def _blocks(batches: Iterable[pa.RecordBatch], schema: Schema) -> Iterator[dict[str, pa.Array]]:
    """Batches joined to about ROWS_AT_ONCE rows: the columns wanted, each one contiguous array."""
    waiting: list[pa.RecordBatch] = []
    rows = 0

    def joined() -> dict[str, pa.Array]:
        table = pa.Table.from_batches(waiting)
        columns = {name: table.column(name).combine_chunks() for name in schema.columns}
        return {k: v.combine_chunks() if isinstance(v, pa.ChunkedArray) else v for k, v in columns.items()}

    try:
        for batch in batches:
            if not isinstance(batch, pa.RecordBatch):
                raise InteractionsError(f"Interactions cannot be read from a {type(batch).__name__}.")
            _check_columns(batch.schema.names, schema)
            waiting.append(batch.select(schema.columns))
            rows += batch.num_rows
            if rows >= ROWS_AT_ONCE:
                yield joined()
                waiting, rows = [], 0
        if rows:
            yield joined()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InteractionsError(f"Cannot read the interactions: {error}") from error


def _encode(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """(int32 codes, distinct values); code -1 stands for null."""
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    if encoded.dictionary.null_count:
        encoded = encoded.dictionary_decode().dictionary_encode()
    codes = encoded.indices.cast(pa.int32())
    if codes.null_count:
        codes = pc.fill_null(codes, -1)
    return codes.to_numpy(zero_copy_only=False), encoded.dictionary


def _check_id_type(kind: pa.DataType, column: str) -> None:
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


def _canonical(values: pa.Array, column: str) -> pa.Array:
    """Distinct ids as their canonical text. Floats that are whole numbers count as integers: nulls make them so."""
    try:
        if pa.types.is_floating(values.type):
            if not pc.all(pc.is_finite(values)).as_py():
                raise InteractionsError(f"Column {column} holds NaN or infinity where an id is needed.")
            values = values.cast(pa.int64())
        texts = values.cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise InteractionsError(f"Column {column} holds something that is no id: {error}") from error
    if pc.any(pc.equal(texts, "")).as_py():
        raise InteractionsError(f"Column {column} holds an empty id.")
    return texts


class _Encoder:
    """Codes of one id column, block by block; `unify` gives every block's codes a common meaning.

    Blocks keep their own small dictionaries until the end: memory is 4 bytes a row plus the ids that are distinct
    within each block.
    """

    def __init__(self) -> None:
        self.dictionaries: list[pa.Array] = []
        self.blocks: list[np.ndarray] = []

    @property
    def sizes(self) -> list[int]:
        return [len(one) for one in self.dictionaries]

    def add(self, array: pa.Array, column: str) -> np.ndarray:
        _check_id_type(array.type, column)
        codes, values = _encode(array)
        if array.null_count or codes.min(initial=0) < 0:
            raise InteractionsError(f"Column {column} holds a null id.")
        self.dictionaries.append(_canonical(values, column))
        return codes

    def keep(self, codes: np.ndarray) -> None:
        self.blocks.append(codes)

    def unify(self) -> tuple[pa.Array, list[np.ndarray]]:
        """The distinct ids, sorted, and for each block the map from its codes to positions among them."""
        return _unify(self.dictionaries)

    def codes(self, maps: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([one[block] for one, block in zip(maps, self.blocks, strict=True)])


def _unify(dictionaries: list[pa.Array]) -> tuple[pa.Array, list[np.ndarray]]:
    together = pa.chunked_array(dictionaries, type=pa.large_string()).combine_chunks()
    if isinstance(together, pa.ChunkedArray):
        together = pa.concat_arrays(together.chunks)
    encoded = together.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy(zero_copy_only=False)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    positions = rank[encoded.indices.to_numpy(zero_copy_only=False)]
    return encoded.dictionary.take(pa.array(order)), np.split(positions, np.cumsum([len(d) for d in dictionaries])[:-1])


class _Categorical:
    """The (user, value) pairs of one categorical column."""

    def __init__(self) -> None:
        self.dictionaries: list[pa.Array] = []
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, array: pa.Array, column: str, users: np.ndarray) -> None:
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            users = users[pc.list_parent_indices(array).to_numpy(zero_copy_only=False)]
            array = pc.list_flatten(array)
        if pa.types.is_null(array.type):
            array = array.cast(pa.large_string())
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        if pa.types.is_nested(kind) or pa.types.is_temporal(kind):
            raise InteractionsError(
                f"Column {column} is {kind}; a categorical feature is string, integer, float, boolean or a list."
            )
        if pa.types.is_floating(kind):
            array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
            array = pc.if_else(pc.is_nan(array), None, array)
        codes, values = _encode(array)
        known = codes >= 0
        pairs = np.unique(np.stack([users[known].astype(np.int64), codes[known]]), axis=1)
        self.dictionaries.append(values.cast(pa.large_string()))
        self.pairs.append((pairs[0], pairs[1]))

    def finish(self, user_maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, pa.Array]:
        values, maps = _unify(self.dictionaries)
        users = [user_map[users] for user_map, (users, _) in zip(user_maps, self.pairs, strict=True)]
        codes = [one[codes] for one, (_, codes) in zip(maps, self.pairs, strict=True)]
        return np.concatenate(users), np.concatenate(codes), values


class _Numerical:
    """The sum and the count of one numerical column, by user."""

    def __init__(self) -> None:
        self.blocks: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, array: pa.Array, column: str, users: np.ndarray, n_users: int) -> None:
        if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type)):
            raise InteractionsError(f"Column {column} is {array.type}; a numerical feature is integer or float.")
        values = pc.fill_null(array.cast(pa.float64(), safe=False), float("nan")).to_numpy(zero_copy_only=False)
        known = np.isfinite(values)
        sums = np.bincount(users[known], values[known], minlength=n_users)
        self.blocks.append((sums, np.bincount(users[known], minlength=n_users)))

    def finish(self, user_maps: list[np.ndarray], n_users: int) -> np.ndarray:
        users = np.concatenate(user_maps)
        sums = np.bincount(users, np.concatenate([sums for sums, _ in self.blocks]), minlength=n_users)
        counts = np.bincount(users, np.concatenate([counts for _, counts in self.blocks]), minlength=n_users)
        # float32 hides the last bits of the float64 sums, which depend on the order of the rows.
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)
