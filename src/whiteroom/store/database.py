"""Connections and transactions on SQLite and PostgreSQL alike. Knows no table but the one Alembic keeps.

SQLite: write-ahead log, full synchronisation, foreign keys on; a write transaction takes the write lock at
its start, so that what it reads stays true until it commits. PostgreSQL: READ COMMITTED; what must not race
is settled by a constraint, by compare-and-set or by a row lock.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import InterfaceError, OperationalError

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

LOCK_WAIT_SECONDS = 30.0
"""How long a transaction waits for another process's lock before it fails with OperationalError."""
_MIGRATION_LOCK = 0x77686974  # any number will do, as long as every version of this program takes the same

# NaN is no JSON: one database would keep it and the other refuse it.
_dumps = functools.partial(json.dumps, allow_nan=False)

_JSON = {"json_serializer": _dumps, "json_deserializer": orjson.loads}

T = TypeVar("T")


class Stale(Exception):
    """The row was changed or deleted since it was read; read it again and decide anew."""


UNSETTLED = (OperationalError, InterfaceError, Stale)
"""What a transaction may raise though it would succeed later: no server, no lock, deadlock, lost race."""


class Database:
    """One database, from any number of threads.

    Parameters
    ----------
    url : SQLAlchemy URL, `sqlite:////file` or `postgresql+psycopg://...`. An in-memory SQLite is refused
        with ValueError: the API, the workers and the jobs are processes of their own.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite and parsed.database in (None, "", ":memory:"):
            raise ValueError("an in-memory SQLite database cannot be shared by processes; name a file.")
        self._reader = _engine(url, self.is_sqlite, reads_only=True)
        self._writer = _engine(url, self.is_sqlite, reads_only=False)
        # SQLite's own wait for a lock sleeps and is unfair; threads of one process queue up here instead.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self.is_sqlite else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that cannot write. SQLite shows it one moment, PostgreSQL each statement its own."""
        with self._reader.connect() as tx:
            if self.is_sqlite:
                tx.exec_driver_sql("BEGIN")
            yield tx

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises."""
        with self._turn, self._writer.connect() as tx:
            if self.is_sqlite:
                tx.exec_driver_sql("BEGIN IMMEDIATE")
            yield tx
            tx.commit()

    def settle(self, change: Callable[[Connection], T], *, patience_seconds: float) -> T:
        """Apply `change` in a write transaction, again while the database is away or a race is lost.

        A commit whose answer was lost is repeated too, so `change` must notice that it has been applied.
        Raises what the last try raised once `patience_seconds` have passed.
        """
        deadline = time.monotonic() + patience_seconds
        pause = 0.02
        while True:
            try:
                with self.write() as tx:
                    return change(tx)
            except UNSETTLED:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 0.5)

    def pulse(self) -> tuple[int, int] | None:
        """What changes when anybody commits, at a hundredth of a query's price; None where there is no such thing.

        Two commits within the file system's clock tick may look like one: ask the database itself now and then.
        """
        if not self.is_sqlite:
            return None
        try:
            log = os.stat(f"{self._writer.url.database}-wal")  # noqa: PTH116 - a Path costs more than the call
        except FileNotFoundError:
            return None
        return log.st_mtime_ns, log.st_size

    def migrate(self) -> None:
        """Bring the schema up to date; quick when it is. Processes may call this at the same time.

        Raises migrations.SchemaTooNew when a newer version of this program has migrated the database.
        """
        from whiteroom.store.migrations import HEAD, upgrade, version

        with self._writer.connect() as tx:
            if version(tx) == HEAD:
                return
        with self.write() as tx:
            if not self.is_sqlite:
                tx.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            if version(tx) != HEAD:
                upgrade(tx)

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()


def insert_new(tx: Connection, table: Table, *conflict: str) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that does nothing, and is no error, when a row with equal `conflict` columns exists."""
    if tx.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=conflict)
    from sqlalchemy.dialects import postgresql  # a tenth of the start of a server that does without it

    return postgresql.insert(table).on_conflict_do_nothing(index_elements=conflict)


def _engine(url: str, is_sqlite: bool, *, reads_only: bool) -> Engine:
    if not is_sqlite:
        # READ COMMITTED shows each statement its own moment anyway; without BEGIN it costs one round trip.
        level = {"isolation_level": "AUTOCOMMIT"} if reads_only else {}
        engine = create_engine(url, **_JSON, pool_size=8, max_overflow=24, pool_pre_ping=True, **level)
        if reads_only:
            event.listen(engine, "connect", _postgresql_reads_only)
        return engine
    arguments = {"isolation_level": None, "check_same_thread": False, "timeout": LOCK_WAIT_SECONDS}
    engine = create_engine(url, **_JSON, pool_size=8, max_overflow=24, connect_args=arguments)
    event.listen(engine, "connect", _sqlite_reader if reads_only else _sqlite_writer)
    return engine


def _sqlite_writer(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_reader(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON").close()


def _postgresql_reads_only(connection: Any, _record: Any) -> None:
    connection.execute("SET default_transaction_read_only = on")
