"""A catalog table's rows as a stream of Arrow record batches: never the whole table, only the columns asked for.

Knows catalog tables and their Hive-style partition directories; formats.py knows the files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from whiteroom.data import formats
from whiteroom.data.columns import arrow_type, epoch_seconds, glue_type, is_epoch_type
from whiteroom.data.errors import DataError
from whiteroom.data.files import AccountFiles, FileInfo
from whiteroom.store.tables import CatalogTable, Column

if TYPE_CHECKING:
    import pyarrow as pa

MAX_VALUE_BYTES: Final = 4096
"""Longest string that is taken for an id or a category: a batch of them stays below 256 MiB."""


def schema(table: CatalogTable, columns: Sequence[str], *, epoch: Collection[str] = ()) -> pa.Schema:
    """The schema of what `batches` yields for the same arguments. Raises DataError SCHEMA_MISMATCH."""
    import pyarrow as pa

    declared = {name: _declared(table, name) for name in columns}
    for name in epoch:
        if not is_epoch_type(declared[name]):
            raise DataError(
                "SCHEMA_MISMATCH",
                f"The column {name} is declared as {declared[name]}; a time is an int, a bigint or a timestamp.",
            )
    return pa.schema([(n, pa.int64() if n in epoch else arrow_type(kind)) for n, kind in declared.items()])


def batches(
    files: AccountFiles, table: CatalogTable, columns: Sequence[str], *, epoch: Collection[str] = ()
) -> Iterator[pa.RecordBatch]:
    """The rows of a table, file by file in the order of their names, in batches of at most 65,536.

    Parameters
    ----------
    files : the files of the account that the table belongs to.
    columns : the columns wanted, matched without regard to case; they come back under these names, in this
        order, as the Arrow type of the declared Glue type.
    epoch : those of `columns` that come as int64 Unix seconds instead, from `int`, `bigint` or `timestamp`.

    Raises
    ------
    DataError : INPUT_NOT_FOUND, RESOURCE_ACCESS_DENIED, SCHEMA_MISMATCH, INVALID_DATA_FILE,
        UNSUPPORTED_DATA_FORMAT, STORAGE_UNAVAILABLE; possibly after some batches.
    """
    import pyarrow as pa

    target = schema(table, columns, epoch=epoch)
    types = {name: arrow_type(_declared(table, name)) for name in columns}
    for file in files.list(table.location):
        _check_not_empty(file)
        partition = _partition(table.location, file.uri)
        stored = {name: kind for name, kind in types.items() if name.lower() not in partition}
        if not stored:
            raise DataError(
                "UNSUPPORTED_DATA_FORMAT", "At least one column must come from the files, not from their directory."
            )
        for batch in formats.read(file.uri, table.format, partial(files.open, file.uri), stored):
            arrays = {name: batch.column(name) for name in stored}
            for name in columns:
                if name not in arrays:
                    arrays[name] = pa.repeat(pa.scalar(partition[name.lower()], pa.string()), batch.num_rows)
            conformed = [_conform(file.uri, n, arrays[n], types[n], epoch=n in epoch) for n in columns]
            yield pa.RecordBatch.from_arrays(conformed, schema=target)


def infer_columns(files: AccountFiles, location: str, format: str) -> tuple[Column, ...]:  # noqa: A002
    """The columns of the first file at `location`, with Glue types, then those of its partition directories.

    Raises DataError as `batches` does.
    """
    file = files.list(location)[0]
    _check_not_empty(file)
    found = formats.infer(file.uri, format, partial(files.open, file.uri))
    stored = [Column(field.name, glue_type(field.type)) for field in found]
    return (*stored, *(Column(name, "string") for name in _partition(location, file.uri)))


def _check_not_empty(file: FileInfo) -> None:
    if file.size == 0:
        raise DataError("INVALID_DATA_FILE", f"The file {file.uri} is empty (0 bytes).")


def _declared(table: CatalogTable, name: str) -> str:
    for column in table.columns:
        if column.name.lower() == name.lower():
            return column.type
    raise DataError("SCHEMA_MISMATCH", f"The table {table.database}.{table.name} has no column {name}.")


def _partition(location: str, uri: str) -> dict[str, str | None]:
    """The values of the `name=value` directories between a table's location and a file, by lower-case name."""
    below = uri.removeprefix(location.rstrip("/") + "/") if uri != location else ""
    pairs = (segment.split("=", 1) for segment in below.split("/")[:-1] if "=" in segment)
    values = {unquote(name).lower(): unquote(value) for name, value in pairs}
    return {name: None if value == "__HIVE_DEFAULT_PARTITION__" else value for name, value in values.items()}


def _conform(uri: str, name: str, array: pa.Array, declared: pa.DataType, *, epoch: bool) -> pa.Array:
    """The array as the declared type, or as Unix seconds, with every value checked."""
    import pyarrow as pa

    with formats.reading(uri):
        array = _bounded(uri, name, array)
        if pa.types.is_string(array.type) and not pa.types.is_string(declared):
            array = _parsed(uri, name, array, declared)
        if epoch:
            return epoch_seconds(array)
        # Finer timestamps lose their nanoseconds; nothing else may lose anything.
        array = array.cast(declared, safe=not pa.types.is_timestamp(declared))
        if pa.types.is_string(declared) or pa.types.is_nested(declared):
            array.validate(full=True)  # neither Parquet nor JSON readers check UTF-8
        return array


def _bounded(uri: str, name: str, array: pa.Array) -> pa.Array:
    """The array without a dictionary, once its longest value is known to be short enough to be repeated."""
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = isinstance(array, pa.DictionaryArray)
    values = array.dictionary if encoded else array
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        longest = pc.max(pc.binary_length(values)).as_py()
        if longest is not None and longest > MAX_VALUE_BYTES:
            raise DataError(
                "INVALID_DATA_FILE",
                f"The column {name} of the file {uri} holds a value of {longest} bytes; {MAX_VALUE_BYTES} are allowed.",
            )
    return array.dictionary_decode() if encoded else array


def _parsed(uri: str, name: str, array: pa.Array, declared: pa.DataType) -> pa.Array:
    """Text as a value of the declared type; timestamps with a zone or, for UTC, without one."""
    import pyarrow as pa

    targets = [declared]
    if pa.types.is_timestamp(declared):
        targets.append(pa.timestamp(declared.unit, "UTC"))
    for target in targets:
        try:
            return array.cast(target)
        except pa.ArrowInvalid:
            continue
    raise formats.mismatch(uri, name, "text that is none", declared)
