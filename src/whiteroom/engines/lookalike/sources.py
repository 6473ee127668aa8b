"""Where interactions come from: anything that gives Arrow batches, and files of Parquet or CSV, as bounded blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from whiteroom.engines.lookalike.errors import InteractionsError

ROWS_AT_ONCE = 8_000_000
BYTES_AT_ONCE = 128 << 20
"""Rows encoded together, at most: each block hashes all ids known so far, so small blocks take more time."""

SLICE = 1 << 17
"""Rows of a larger batch taken at once."""


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


def _batches(source: Any, schema: Schema) -> Iterable[pa.RecordBatch]:
    import pyarrow.dataset as ds

    if isinstance(source, (str, Path)) or (
        isinstance(source, (list, tuple)) and source and all(isinstance(one, (str, Path)) for one in source)
    ):
        return _file_batches(source, schema)
    if isinstance(source, ds.Dataset):
        check_columns(source.schema.names, schema)
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
    if paths[0].endswith((".csv", ".csv.gz")):
        kind = ds.CsvFileFormat(convert_options=ids_as_text)
    else:
        # With the buffer, all compressed bytes of a file stay in memory until its end.
        kind = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False))
    try:
        files = ds.dataset(paths if len(paths) > 1 else paths[0], format=kind)
        check_columns(files.schema.names, schema)
        # Left to itself, Arrow decodes up to 4 x 16 batches ahead of what is wanted.
        yield from files.to_batches(columns=schema.columns, batch_readahead=4, fragment_readahead=1)
    except OSError as error:
        raise InteractionsError(f"Cannot read the interactions: {error}") from error


def check_columns(names: Iterable[str], schema: Schema) -> None:
    names = list(names)
    missing = [name for name in schema.columns if name not in names]
    if missing:
        raise InteractionsError(
            f"The interactions have no column {', '.join(missing)}; they have {', '.join(names) or 'none'}."
        )


def blocks(source: Any, schema: Schema) -> Iterator[pa.Table]:
    """Batches joined to at most about ROWS_AT_ONCE rows and BYTES_AT_ONCE bytes, with the columns wanted only."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    try:
        for batch in _batches(source, schema):
            if not isinstance(batch, pa.RecordBatch):
                raise InteractionsError(f"Interactions cannot be read from a {type(batch).__name__}.")
            check_columns(batch.schema.names, schema)
            batch = batch.select(schema.columns)
            for start in range(0, batch.num_rows, SLICE):
                waiting.append(batch.slice(start, SLICE))
                rows += waiting[-1].num_rows
                size += waiting[-1].nbytes
                if rows >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
                    table = pa.Table.from_batches(waiting)
                    waiting, rows, size = [], 0, 0
                    yield table
                    del table
        if rows:
            yield pa.Table.from_batches(waiting)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InteractionsError(f"Cannot read the interactions: {error}") from error
