"""The tables as they are now; `migrations/` is how a database comes to have them, and both must agree.

Knows no SQL statement. What only a handler reads lies in JSON columns; what must be unique, counted, ordered
or fenced has a typed column. Every time is an aware UTC `datetime`, stored as integer microseconds since
1970: it sorts, keeps its precision and is the same on both databases.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@lru_cache(maxsize=4096)  # clients poll: the same rows are read again and again
def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND


class UtcTime(TypeDecorator[datetime]):
    """An aware `datetime` as microseconds since 1970 UTC. A naive one is refused with ValueError."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the time {value} has no time zone.")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else _moment(value)


# SQLite gives only INTEGER keys out by itself.
Identity = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

account = Table(
    "account",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
)

access_key = Table(
    "access_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", ForeignKey("account.id"), nullable=False, index=True),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("created", UtcTime, nullable=False),
)

bucket = Table(
    "bucket",
    metadata,
    Column("name", Text, primary_key=True),
    Column("account", ForeignKey("account.id"), nullable=False, index=True),
    Column("created", UtcTime, nullable=False),
)

catalog_table = Table(
    "catalog_table",
    metadata,
    Column("account", ForeignKey("account.id"), primary_key=True),
    Column("database", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("location", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("columns", JSON, nullable=False),
)

resource = Table(
    "resource",
    metadata,
    # Never given out twice: a page token that names a deleted row must not skip a newer one.
    Column("sequence", Identity, primary_key=True),
    Column("arn", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("account", ForeignKey("account.id"), nullable=False),
    Column("region", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("unique_name", Text),
    Column("parent", ForeignKey("resource.arn"), index=True),
    Column("collaboration", Text),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("updated", UtcTime, nullable=False),
    Column("body", JSON, nullable=False),
    Column("private", JSON, nullable=False),
    UniqueConstraint("account", "region", "kind", "unique_name"),
    Index(None, "account", "kind", "sequence"),
    sqlite_autoincrement=True,
)

job = Table(
    "job",
    metadata,
    # Never given out twice: it names the directory of the job's artifacts.
    Column("id", Identity, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("resource_arn", ForeignKey("resource.arn", ondelete="CASCADE"), nullable=False, index=True),
    Column("payload", JSON, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("worker", Text),
    Column("lease_until", UtcTime),
    Column("run_after", UtcTime, nullable=False),
    Column("checkpoint", JSON(none_as_null=True)),
    Column("progress", Double, nullable=False),
    Column("progress_text", Text, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("error", Text),
    Column("created", UtcTime, nullable=False),
    Column("started", UtcTime),
    Column("ended", UtcTime),
    CheckConstraint("status IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED')", name="status"),
    Index(None, "status", "run_after"),
    Index(None, "status", "lease_until"),
    sqlite_autoincrement=True,
)

budget_entry = Table(
    "budget_entry",
    metadata,
    Column("id", Identity, primary_key=True),
    # The ARN of what has the budget; no foreign key, for what was spent outlives what it was spent on.
    Column("budget", Text, nullable=False),
    Column("unit", Text, nullable=False),
    # Millionths of the unit: sums are exact. Spending is positive.
    Column("micros", BigInteger, nullable=False),
    Column("job", BigInteger),
    Column("at", UtcTime, nullable=False),
    UniqueConstraint("budget", "unit", "job"),
    sqlite_autoincrement=True,
)

audit_event = Table(
    "audit_event",
    metadata,
    Column("id", Identity, primary_key=True),
    Column("at", UtcTime, nullable=False),
    # Who may read the event; no foreign key, for a record outlives what it is about.
    Column("account", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("resource", Text),
    Column("allowed", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Index(None, "account", "id"),
    sqlite_autoincrement=True,
)
