"""Reading a seed: JSON Lines with one `user_id` a line, from an account's own bucket.

A seed is another party's secret: no message repeats what a line holds.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Final

from whiteroom.data.errors import DataError
from whiteroom.data.files import AccountFiles

MAX_LINE_BYTES: Final = 64 * 1024
_BOM: Final = b"\xef\xbb\xbf"


def read_seed(files: AccountFiles, uri: str, *, min_ids: int, max_ids: int, max_bytes: int) -> list[str]:
    """The distinct user ids of a seed, as strings, in the order they first come.

    Parameters
    ----------
    files : the files of the account that gave the seed.
    uri : one file, or a prefix whose files are read in the order of their names; names that end with .gz are
        unpacked. An id is a string or an integer; 7 and "7" are one id. Blank lines and other keys are skipped.
    min_ids, max_ids : how many distinct ids it must and may hold.
    max_bytes : size in bytes that it may have, packed and unpacked.

    Raises
    ------
    DataError : INVALID_SEED_DATA, SEED_SIZE_BELOW_MINIMUM, SEED_TOO_LARGE, and those of AccountFiles.
    """
    found = files.list(uri)
    if sum(file.size for file in found) > max_bytes:
        raise _too_large(f"{max_bytes} bytes")
    ids: dict[str, None] = {}
    room = max_bytes
    for file in found:
        for number, line in enumerate(_lines(files, file.uri), 1):
            room -= len(line)
            if room < 0:
                raise _too_large(f"{max_bytes} bytes")
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.isspace():
                continue
            try:
                ids.setdefault(_user_id(line))
            except ValueError as error:
                raise DataError("INVALID_SEED_DATA", f"Line {number} of {file.uri} {error}.") from None
            if len(ids) > max_ids:
                raise _too_large(f"{max_ids} distinct user ids")
    if len(ids) < min_ids:
        raise DataError(
            "SEED_SIZE_BELOW_MINIMUM",
            f"The seed holds {len(ids)} distinct user ids; at least {min_ids} are needed.",
        )
    return list(ids)


def _lines(files: AccountFiles, uri: str) -> Iterator[bytes]:
    """The lines of a file; one over the limit comes cut, so that it fails as what it is."""
    with files.open(uri) as source:
        packed = uri.lower().endswith(".gz")
        lines = io.BufferedReader(gzip.GzipFile(fileobj=source) if packed else source)  # type: ignore[type-var]
        try:
            yield from iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b"")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError("INVALID_SEED_DATA", f"The file {uri} is not a whole gzip file.") from error
        except OSError as error:
            raise DataError("STORAGE_UNAVAILABLE", f"The storage failed while {uri} was read.") from error


def _user_id(line: bytes) -> str:
    """The id of one line. Raises ValueError with the end of a sentence that begins with the line's number."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        document = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None
    if not isinstance(document, dict) or "user_id" not in document:
        raise ValueError('is not a JSON object with the key "user_id"')
    value = document["user_id"]
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise ValueError('has a "user_id" that is neither a string nor an integer, or is empty')
    try:
        text = str(value)
        text.encode("utf-8")
    except ValueError:
        raise ValueError('has a "user_id" that is no valid Unicode or too long a number') from None
    return text


def _too_large(limit: str) -> DataError:
    return DataError("SEED_TOO_LARGE", f"The seed holds more than the {limit} that are allowed.")
