"""One file of Parquet, CSV (with a header) or JSON Lines as Arrow record batches. Knows no account and no catalog.

Files are hostile. Memory is bounded by a Parquet page or a block of text; whatever is wrong with a file ends in a
DataError that names it by its s3:// URI and repeats none of its values.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from whiteroom.data.columns import agrees, glue_type
from whiteroom.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS: Final = 65_536
BLOCK_BYTES: Final = 4 * 1024 * 1024
MAX_CHUNK_BYTES: Final = 4 * 1024**3
_CODECS: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd", ".lz4": "lz4"}
_READ_AHEAD: Final = 8 * 1024 * 1024

Opener = Callable[[], BinaryIO]
"""Opens the file at its beginning; a text file is opened twice, for its columns' names and for its rows."""


def read(
    uri: str,
    format: str,  # noqa: A002
    opener: Opener,
    wanted: Mapping[str, pa.DataType],
) -> Iterator[pa.RecordBatch]:
    """The rows of one file: columns `wanted`, matched without regard to case, in their order and under these names.

    Types are the file's own where they agree with the wanted ones; timestamps of text files come as strings, and
    the strings of Parquet as dictionaries, so that a short one repeated a million times stays short.
    Raises DataError SCHEMA_MISMATCH, INVALID_DATA_FILE, UNSUPPORTED_DATA_FORMAT, STORAGE_UNAVAILABLE.
    """
    readers = {"parquet": _read_parquet, "csv": _read_csv, "json": _read_json}
    if format not in readers:
        raise DataError("UNSUPPORTED_DATA_FORMAT", f"Tables of format {format!r} cannot be read.")
    with reading(uri):
        for batch in readers[format](uri, opener, wanted):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)


def infer(uri: str, format: str, opener: Opener) -> pa.Schema:  # noqa: A002
    """The columns of a file. Of text the first 4 MiB decide; integers that begin with 0 are taken for strings.

    Raises as `read` does.
    """
    with reading(uri):
        if format == "parquet":
            with opener() as source:
                return _parquet(source).schema_arrow
        if format == "json":
            import pyarrow.json as pj

            with _text(uri, opener) as source:
                return pj.open_json(source, read_options=pj.ReadOptions(block_size=BLOCK_BYTES)).schema
        if format == "csv":
            return _infer_csv(uri, opener)
    raise DataError("UNSUPPORTED_DATA_FORMAT", f"Tables of format {format!r} cannot be read.")


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn pyarrow's errors into ours; a DataError and a lack of memory pass as they are."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowMemoryError:
        raise
    except pa.ArrowNotImplementedError as error:
        raise DataError("UNSUPPORTED_DATA_FORMAT", f"The file {uri} uses a feature that is not read.") from error
    except (pa.ArrowInvalid, pa.ArrowException, UnicodeError) as error:
        code, why = _explain(str(error))
        raise DataError(code, f"The file {uri} cannot be read: {why}.") from error
    except OSError as error:
        if error.errno is not None or "AWS Error" in str(error):
            raise DataError("STORAGE_UNAVAILABLE", f"The storage failed while {uri} was read.") from error
        code, why = _explain(str(error))
        raise DataError(code, f"The file {uri} cannot be read: {why}.") from error


def mismatch(uri: str, column: str, found: str, declared: pa.DataType) -> DataError:
    """The error for a column whose type in the file is another than the table declares."""
    return DataError(
        "SCHEMA_MISMATCH",
        f"The column {column} is declared as {glue_type(declared)}, but in the file {uri} it is {found}.",
    )


_EXPLANATIONS: Final = (
    (r"straddl", "INVALID_DATA_FILE", "a line is longer than 4 MiB"),
    (r"Expected (\d+) columns, got (\d+)", "INVALID_DATA_FILE", "a line has {1} fields and the header {0}"),
    (r"UTF-?8|codec can't decode", "INVALID_DATA_FILE", "it holds text that is not UTF-8"),
    (r"Truncated|Unexpected end of stream", "INVALID_DATA_FILE", "it is truncated"),
    (r"Empty (CSV|JSON)", "INVALID_DATA_FILE", "it is empty, or its first line is longer than 4 MiB"),
    (r"magic bytes|minimum file footer|footer size", "INVALID_DATA_FILE", "it is not a whole Parquet file"),
    (
        r"JSON parse error: Column\(/([\w /]*)\) changed from (\w+) to (\w+)",
        "SCHEMA_MISMATCH",
        "the column {0} is declared as a {1} and holds a {2}",
    ),
    (r"JSON parse error: Column\(\)", "INVALID_DATA_FILE", "a line is not a JSON object"),
    (r"Failed to convert JSON to (\w+)", "SCHEMA_MISMATCH", "a value of a column declared as {0} is none"),
    (r"JSON parse error", "INVALID_DATA_FILE", "a line is not valid JSON"),
)


def _explain(message: str) -> tuple[str, str]:
    for pattern, code, why in _EXPLANATIONS:
        if match := re.search(pattern, message):
            return code, why.format(*match.groups())
    return "INVALID_DATA_FILE", "it is damaged"


def _parquet(source: Any, **options: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(
        source,
        coerce_int96_timestamp_unit="us",
        page_checksum_verification=True,
        buffer_size=_READ_AHEAD,
        **options,
    )


def _read_parquet(uri: str, opener: Opener, wanted: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with opener() as source:
        file = _parquet(source)
        names = _match(uri, file.schema_arrow.names, wanted)
        for column, declared in wanted.items():
            found = file.schema_arrow.field(names[column]).type
            if not agrees(found, declared):
                raise mismatch(uri, column, _name(found), declared)
        _check_chunks(uri, file.metadata, set(names.values()))
        texts = [names[column] for column, declared in wanted.items() if pa.types.is_string(declared)]
        file = _parquet(source, read_dictionary=texts)
        for batch in file.iter_batches(BATCH_ROWS, columns=list(names.values())):
            yield pa.RecordBatch.from_arrays([batch.column(names[c]) for c in wanted], names=list(wanted))


def _check_chunks(uri: str, metadata: Any, names: set[str]) -> None:
    """Refuse column chunks that unpack to more than `MAX_CHUNK_BYTES`: writers keep them a hundred times smaller."""
    indices = [
        index for index in range(metadata.num_columns) if metadata.schema.column(index).path.split(".")[0] in names
    ]
    for group in range(metadata.num_row_groups):
        for index in indices:
            if metadata.row_group(group).column(index).total_uncompressed_size > MAX_CHUNK_BYTES:
                raise DataError("INVALID_DATA_FILE", f"The file {uri} unpacks to more than is read at once.")


def _read_csv(uri: str, opener: Opener, wanted: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.csv as pc

    with _text(uri, opener) as source:
        header = pc.open_csv(source, pc.ReadOptions(block_size=BLOCK_BYTES)).schema.names
    names = _match(uri, header, wanted)
    types = {names[column]: _text_type(declared) for column, declared in wanted.items()}
    for column, declared in wanted.items():
        if pa.types.is_nested(declared) or pa.types.is_binary(declared):
            raise mismatch(uri, column, "text, for CSV holds no such values", declared)
    with _text(uri, opener) as source:
        try:
            for batch in pc.open_csv(
                source,
                pc.ReadOptions(block_size=BLOCK_BYTES),
                pc.ParseOptions(),
                pc.ConvertOptions(
                    include_columns=list(types),
                    column_types=types,
                    null_values=["", "\\N"],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ):
                yield batch.rename_columns(list(wanted))
        except pa.ArrowInvalid as error:
            match = re.match(r"In CSV column #(\d+): CSV conversion error to (?!string)", str(error))
            if match is None:
                raise
            column = next(c for c, name in names.items() if name == header[int(match[1])])
            raise mismatch(uri, column, "something else on a line", wanted[column]) from error


def _infer_csv(uri: str, opener: Opener) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv

    options = pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES)
    with _text(uri, opener) as source:
        found = pyarrow.csv.open_csv(source, options).schema
    _match(uri, found.names, found.names)
    strings = pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in found.names})
    with _text(uri, opener) as source:
        first = next(iter(pyarrow.csv.open_csv(source, options, convert_options=strings)), None)
    for index, field in enumerate(found):
        if first is None or not pa.types.is_integer(field.type):
            continue
        if pc.any(pc.match_substring_regex(first.column(index), r"^[+-]?0\d")).as_py():
            found = found.set(index, field.with_type(pa.string()))
    return found


def _read_json(uri: str, opener: Opener, wanted: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.json as pj

    with _text(uri, opener) as source:
        keys = _first_keys(uri, source)
    # A key that the first object lacks may come later, or be null on every line: JSON has no other null column.
    names = _match(uri, [*keys, *_absent(keys, wanted)], wanted)
    explicit = pa.schema([(names[column], _text_type(declared)) for column, declared in wanted.items()])
    with _text(uri, opener) as source:
        for batch in pj.open_json(
            source,
            pj.ReadOptions(block_size=BLOCK_BYTES),
            pj.ParseOptions(explicit_schema=explicit, unexpected_field_behavior="ignore"),
        ):
            yield pa.RecordBatch.from_arrays([batch.column(names[c]) for c in wanted], names=list(wanted))


def _first_keys(uri: str, source: Any) -> list[str]:
    lines = io.BufferedReader(source, 64 * 1024)
    while line := lines.readline(BLOCK_BYTES):
        if not line.isspace():
            try:
                first = json.loads(line)
            except (ValueError, RecursionError):
                raise DataError("INVALID_DATA_FILE", f"The first line of {uri} is not a JSON object.") from None
            if not isinstance(first, dict):
                raise DataError("INVALID_DATA_FILE", f"The first line of {uri} is not a JSON object.")
            return list(first)
    raise DataError("INVALID_DATA_FILE", f"The file {uri} cannot be read: it is empty.")


def _absent(keys: Iterable[str], wanted: Iterable[str]) -> list[str]:
    present = {key.lower() for key in keys}
    return [column for column in wanted if column.lower() not in present]


def _match(uri: str, names: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """For each wanted column the file's own name of it, which may differ in case, as in AWS Glue."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.lower(), []).append(name)
    matched = {}
    for column in wanted:
        same = found.get(column.lower(), [])
        if len(same) != 1:
            how = f"more than one column {column}" if same else f"no column {column}"
            raise DataError("SCHEMA_MISMATCH", f"The file {uri} has {how}.")
        matched[column] = same[0]
    return matched


def _text(uri: str, opener: Opener) -> Any:
    """The text of a file, unpacked as its name's ending tells; a context manager that closes both."""
    import pyarrow as pa

    file = opener()
    native = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, mode="r")
    for ending, codec in _CODECS.items():
        if uri.lower().endswith(ending):
            return pa.CompressedInputStream(native, codec)
    return native


def _text_type(declared: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return pa.string() if pa.types.is_timestamp(declared) else declared


def _name(arrow: pa.DataType) -> str:
    try:
        return glue_type(arrow)
    except DataError:
        return str(arrow)
