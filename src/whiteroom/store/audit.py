"""What was decided about whose data, and why: written once, never changed, readable by the data's owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from whiteroom.store.schema import audit_event

_columns = audit_event.c


@dataclass(frozen=True)
class Event:
    id: int
    at: datetime
    account: str
    operation: str
    resource: str | None
    allowed: bool
    reason: str
    detail: dict[str, Any]


def record(
    tx: Connection,
    *,
    now: datetime,
    account: str,
    operation: str,
    resource: str | None,
    allowed: bool,
    reason: str,
    detail: dict[str, Any] | None = None,
) -> None:
    """Keep a decision. `account` is who may read it: the owner of the data that it was about."""
    tx.execute(
        insert(audit_event).values(
            at=now,
            account=account,
            operation=operation,
            resource=resource,
            allowed=allowed,
            reason=reason,
            detail=detail or {},
        )
    )


def listing(tx: Connection, account: str, *, limit: int, before: int | None = None) -> list[Event]:
    """Up to `limit` of the account's events, newest first, whose id is below `before`."""
    statement = select(*(_columns[name] for name in Event.__dataclass_fields__))
    statement = statement.where(_columns.account == account).order_by(_columns.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(_columns.id < before)
    return [Event(*row) for row in tx.execute(statement)]
