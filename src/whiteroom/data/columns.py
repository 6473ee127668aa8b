"""AWS Glue column types and Arrow's: what a type's name means, and which file types agree with a declared one.

Reads no file. pyarrow is imported when it is needed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from whiteroom.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN: Final = {
    "string": "string",
    "tinyint": "int8",
    "smallint": "int16",
    "int": "int32",
    "integer": "int32",
    "bigint": "int64",
    "float": "float",
    "double": "double",
    "boolean": "bool",
    "binary": "binary",
    "date": "date32",
}
_GLUE_NAMES: Final = {
    "bool": "boolean",
    "int8": "tinyint",
    "int16": "smallint",
    "uint8": "smallint",
    "int32": "int",
    "uint16": "int",
    "int64": "bigint",
    "uint32": "bigint",
    "halffloat": "float",
    "float": "float",
    "double": "double",
    "string": "string",
    "large_string": "string",
    "string_view": "string",
    "null": "string",
    "binary": "binary",
    "large_binary": "binary",
    "date32[day]": "date",
    "date64[ms]": "date",
}
MAX_TYPE_NAME: Final = 1024


def arrow_type(glue_type: str) -> pa.DataType:
    """The Arrow type of a Glue type name such as `bigint`, `decimal(10,2)` or `array<string>`.

    `timestamp` is microseconds without a zone. Raises DataError UNSUPPORTED_DATA_FORMAT for others.
    """
    import pyarrow as pa

    name = re.sub(r"\s+", "", glue_type[:MAX_TYPE_NAME]).lower()
    if name in _PLAIN:
        return pa.type_for_alias(_PLAIN[name])
    if name == "timestamp":
        return pa.timestamp("us")
    if re.fullmatch(r"(char|varchar)\(\d{1,5}\)", name):
        return pa.string()
    if match := re.fullmatch(r"decimal(?:\((\d{1,2})(?:,(\d{1,2}))?\))?", name):
        precision, scale = int(match[1] or 10), int(match[2] or 0)
        if 1 <= precision <= 38 and scale <= precision:
            return pa.decimal128(precision, scale)
    if name.startswith("array<") and name.endswith(">") and name.count("array<") <= 8:
        return pa.list_(arrow_type(name[6:-1]))
    raise DataError("UNSUPPORTED_DATA_FORMAT", f"Columns of type {glue_type[:100]} cannot be read.")


def glue_type(arrow: pa.DataType) -> str:
    """The Glue name of an Arrow type. Raises DataError UNSUPPORTED_DATA_FORMAT when there is none."""
    import pyarrow as pa

    if str(arrow) in _GLUE_NAMES:
        return _GLUE_NAMES[str(arrow)]
    if pa.types.is_timestamp(arrow):
        return "timestamp"
    if pa.types.is_decimal(arrow) and arrow.precision <= 38:
        return f"decimal({arrow.precision},{arrow.scale})"
    if pa.types.is_uint64(arrow):
        return "decimal(20,0)"
    if pa.types.is_dictionary(arrow):
        return glue_type(arrow.value_type)
    if _is_list(arrow):
        return f"array<{glue_type(arrow.value_type)}>"
    if pa.types.is_map(arrow):
        return f"map<{glue_type(arrow.key_type)},{glue_type(arrow.item_type)}>"
    if pa.types.is_struct(arrow):
        return f"struct<{','.join(f'{field.name}:{glue_type(field.type)}' for field in arrow)}>"
    raise DataError("UNSUPPORTED_DATA_FORMAT", f"Columns of Arrow type {arrow} have no Glue type.")


def agrees(found: pa.DataType, declared: pa.DataType) -> bool:
    """Whether a file's type holds nothing that the declared type cannot: the same kind, and no wider."""
    import pyarrow as pa

    t = pa.types
    if t.is_dictionary(found):
        return agrees(found.value_type, declared)
    if t.is_null(found) or found == declared:
        return True
    if t.is_string(declared):  # older writers leave strings unmarked
        return bool(t.is_large_string(found) or t.is_binary(found) or t.is_large_binary(found))
    if t.is_integer(declared):
        signed_bits = found.bit_width + t.is_unsigned_integer(found) if t.is_integer(found) else 65
        return bool(signed_bits <= declared.bit_width)
    if t.is_floating(declared):
        return bool(t.is_floating(found) and found.bit_width <= declared.bit_width)
    if t.is_decimal(declared):
        return bool(t.is_decimal(found) and found.scale == declared.scale and found.precision <= declared.precision)
    if t.is_list(declared):
        return _is_list(found) and agrees(found.value_type, declared.value_type)
    return bool(
        (t.is_timestamp(declared) and t.is_timestamp(found))
        or (t.is_date32(declared) and t.is_date(found))
        or (t.is_binary(declared) and t.is_large_binary(found))
    )


def is_epoch_type(glue_type_name: str) -> bool:
    """Whether a column of this type can tell a time: seconds as `int` or `bigint`, or a `timestamp`."""
    return glue_type_name.strip().lower() in ("int", "integer", "bigint", "timestamp")


def epoch_seconds(column: pa.Array) -> pa.Array:
    """int64 Unix seconds of an integer column of seconds, or of a timestamp column (no zone means UTC)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(column.type):
        column = pc.floor_temporal(column, unit="second").cast(pa.timestamp("s", column.type.tz))
    return column.cast(pa.int64())


def _is_list(arrow: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow))
