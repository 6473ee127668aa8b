"""The user's own interactions and seed, read leniently and refused clearly. Knows no server."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whiteroom.config import PRESETS
from whiteroom.demo.data import DemoData
from whiteroom.problems import Problem

if TYPE_CHECKING:
    import pyarrow as pa

USER_NAMES = ("user_id", "userid", "user", "customer_id", "customerid", "member_id", "visitor_id", "visitorid", "uid")
ITEM_NAMES = (
    "item_id", "itemid", "item", "product_id", "productid", "movie_id", "movieid", "article_id", "content_id",
    "track_id", "stock_code", "stockcode", "sku", "asin",
)  # fmt: skip
TIME_NAMES = ("timestamp", "time", "ts", "unix_time", "event_time", "datetime", "date", "created_at", "invoicedate")
CONSTANT_TIME = 1_767_225_600  # 2026-01-01T00:00:00Z
FEWEST_SEEDS = PRESETS["open"].min_seed_ids
"""The demo's server runs by the default settings."""
_HOLD_OUT_FROM = 50
"""With fewer matched seeds than this, all are given to the service and nothing is held out."""


@dataclass(frozen=True)
class Columns:
    """Column names of the interactions; None where they are to be guessed."""

    user: str | None = None
    item: str | None = None
    timestamp: str | None = None


def read(interactions: Path, seed: Path, columns: Columns) -> DemoData:
    """Read both files; hold a fifth of the seed out where there is enough of it.

    Raises
    ------
    Problem : a file cannot be read, names no such column, or the two do not fit together.
    """
    import pyarrow.compute as pc

    source = _table(interactions)
    if source.num_rows == 0:
        raise Problem(f"{interactions} holds no rows.")
    names = _names(interactions, source.column_names, columns)
    table, about = _interactions(interactions, source, names)
    users = {str(user) for user in pc.unique(table["user_id"]).to_pylist()}
    items = len(pc.unique(table["item_id"]))
    ids = list(dict.fromkeys(_seed_ids(seed, names.user or "user_id")))
    if not ids:
        raise Problem(f"{seed} holds no ids.")
    matched = [user for user in ids if user in users]
    if len(matched) < FEWEST_SEEDS:
        raise Problem(
            f"Of the {len(ids):,} ids in {seed}, {len(matched):,} are users of {interactions}; at least "
            f"{FEWEST_SEEDS} must be. The seed begins {_some(ids)}; the users are like {_some(sorted(users))}."
        )
    held_out: list[str] = []
    if len(matched) >= _HOLD_OUT_FROM:
        held_out = random.Random(0).sample(matched, len(matched) // 5)  # noqa: S311 - no secret, and repeatable
    given = [user for user in ids if user not in set(held_out)]
    about = (
        f"{len(users):,} users, {items:,} items, {table.num_rows:,} interactions from {interactions}",
        *about,
        f"{len(ids):,} seed ids from {seed}, {len(matched):,} of them known users"
        + (f"; {len(held_out):,} held out to measure with" if held_out else ""),
    )
    return DemoData(table, len(users), items, given, frozenset(held_out), "the seeds held out", about)


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        if parquet:
            return pyarrow.parquet.read_table(path)
        delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
        return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter))
    except OSError as error:
        raise Problem(f"Cannot read {path}: {error.strerror or error}.") from error
    except pa.ArrowInvalid as error:
        raise Problem(f"{path} is neither Parquet nor CSV that can be read: {str(error).splitlines()[0]}") from error


def _names(path: Path, present: list[str], wanted: Columns) -> Columns:
    def find(option: str, given: str | None, guesses: tuple[str, ...]) -> str | None:
        if given is not None:
            if given not in present:
                raise Problem(f"{path} has no column {given!r} (--{option}); it has {', '.join(present)}.")
            return given
        by_lower = {name.lower().strip().replace(" ", "_"): name for name in reversed(present)}
        return next((by_lower[guess] for guess in guesses if guess in by_lower), None)

    user = find("user-column", wanted.user, USER_NAMES)
    item = find("item-column", wanted.item, ITEM_NAMES)
    for option, name in (("user-column", user), ("item-column", item)):
        if name is None:
            raise Problem(f"{path} has the columns {', '.join(present)}: say which one with --{option}.")
    return Columns(user, item, find("timestamp-column", wanted.timestamp, TIME_NAMES))


def _interactions(path: Path, source: pa.Table, names: Columns) -> tuple[pa.Table, tuple[str, ...]]:
    """The table as the service wants it, and what was done to get there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    about = []
    users = _ids(path, names.user or "", source[names.user])
    items = _ids(path, names.item or "", source[names.item])
    if names.timestamp is None:
        about.append("there are no times in it: one constant time stands in for them")
        times = pa.chunked_array([pa.repeat(pa.scalar(CONSTANT_TIME, pa.int64()), source.num_rows)])
    else:
        times = _seconds(path, names.timestamp, source[names.timestamp])
    table = pa.table({"user_id": users, "item_id": items, "timestamp": times})
    whole = table.filter(pc.and_(pc.and_(users.is_valid(), items.is_valid()), times.is_valid()))
    if dropped := table.num_rows - whole.num_rows:
        about.append(f"{dropped:,} rows without a user, an item or a time were left out")
    if whole.num_rows == 0:
        raise Problem(f"{path} holds no row with a user, an item and a time.")
    return whole, tuple(about)


def _ids(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.types as kinds

    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        return column.cast(pa.string())
    if kinds.is_integer(kind) or kinds.is_floating(kind):  # whole numbers turn into floats beside a missing one
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            pass
    raise Problem(f"The column {name!r} of {path} is of type {column.type}; ids must be strings or whole numbers.")


def _seconds(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    try:
        if kinds.is_timestamp(column.type) or kinds.is_date(column.type):
            return column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        if kinds.is_integer(column.type) or kinds.is_floating(column.type):
            seconds = column.cast(pa.int64(), safe=False)
            largest = pc.max(pc.abs(seconds)).as_py() or 0
            for unit in (10**9, 10**6, 10**3):  # nanoseconds, microseconds, milliseconds: after the year 5000
                if largest // unit > 10**8:
                    return pc.divide(seconds, unit)
            return seconds
    except pa.ArrowInvalid as error:
        raise Problem(f"The times in {name!r} of {path} cannot be read: {error}") from error
    raise Problem(f"The column {name!r} of {path} is of type {column.type}; times must be Unix seconds or timestamps.")


def _seed_ids(path: Path, user_column: str) -> Iterable[str]:
    """Ids as strings, from Parquet, JSON Lines, CSV or plain text, one a line."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
        text = "" if head == b"PAR1" else path.read_text("utf-8-sig")
    except OSError as error:
        raise Problem(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise Problem(f"{path} is neither Parquet nor text in UTF-8.") from error
    if head == b"PAR1":
        return _column_of_ids(path, user_column)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith("{"):
        return [_json_id(path, number, line, user_column) for number, line in enumerate(lines, 1)]
    if lines and any(mark in lines[0] for mark in ",\t"):
        return _column_of_ids(path, user_column)
    ids = [line.strip('"') for line in lines]
    return ids[1:] if ids and ids[0].lower() in (user_column.lower(), *USER_NAMES) else ids


def _column_of_ids(path: Path, user_column: str) -> list[str]:
    table = _table(path)
    if table.num_columns == 1:
        name: str | None = table.column_names[0]
    else:
        wanted = (user_column.lower(), *USER_NAMES)
        name = next((n for guess in wanted for n in table.column_names if n.lower() == guess), None)
    if name is None:
        raise Problem(
            f"{path} has the columns {', '.join(table.column_names)}; call the one with the ids {user_column!r}."
        )
    return [str(value) for value in _ids(path, name, table[name]).drop_null().to_pylist()]


def _json_id(path: Path, number: int, line: str, user_column: str) -> str:
    try:
        document: Any = json.loads(line)
    except ValueError as error:
        raise Problem(f"Line {number} of {path} is not JSON: {error}.") from error
    for name in (user_column, *USER_NAMES):
        if isinstance(document, dict) and isinstance(document.get(name), (str, int)):
            return str(document[name])
    raise Problem(f'Line {number} of {path} has no "{user_column}" that is a string or a whole number.')


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3])
