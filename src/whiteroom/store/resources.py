"""Resources of every kind, one row each: read within a scope, changed by compare-and-set.

Knows no kind's meaning and no state machine. No function reads a resource without a `Scope`, so that an
account cannot be shown another's by oversight.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, Select, bindparam, exists, func, select
from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update
from sqlalchemy.exc import IntegrityError

from whiteroom.store import schema
from whiteroom.store.database import Stale, insert_new

__all__ = [
    "InUse",
    "Listed",
    "Missing",
    "NameTaken",
    "Resource",
    "Scope",
    "Stale",
    "count",
    "delete",
    "has_children",
    "insert",
    "load",
    "page",
    "update",
]

_table = schema.resource


class Missing(LookupError):
    """The scope holds no such resource. Says the same whether or not another account has it."""

    def __init__(self, kind: str, arn: str) -> None:
        super().__init__(f"there is no {kind} {arn}.")
        self.kind = kind
        self.arn = arn


class NameTaken(Exception):
    """Another resource of this kind, account and region has the name."""


class InUse(Exception):
    """Another resource has this one as its parent."""


@dataclass(frozen=True)
class Scope:
    """Whose resources a read returns: one account's, in one Region or (None) in all, or everybody's, for `why`."""

    account: str | None
    why: str = ""
    region: str | None = None

    def __post_init__(self) -> None:
        if self.account == "" or (self.account is None and not self.why):
            raise ValueError("a scope names an account, or says why it sees every account's resources.")

    @classmethod
    def of(cls, account: str, region: str | None = None) -> Scope:
        return cls(account, region=region)

    @classmethod
    def service(cls, *, why: str) -> Scope:
        """Every account's: for a job's end and the copies of one execution, never for what a caller asked."""
        return cls(None, why)


class Resource(NamedTuple):
    """One row. `body` is the Get document, `private` what no Get shows: both JSON, neither to be mutated."""

    sequence: int
    arn: str
    kind: str
    account: str
    region: str
    name: str
    parent: str | None
    collaboration: str | None
    status: str
    version: int
    created: datetime
    updated: datetime
    body: dict[str, Any]
    private: dict[str, Any]


class Listed(NamedTuple):
    """One row of a page: all of a resource but its `private` facts, which no list shows."""

    sequence: int
    arn: str
    kind: str
    account: str
    region: str
    name: str
    parent: str | None
    collaboration: str | None
    status: str
    version: int
    created: datetime
    updated: datetime
    body: dict[str, Any]


_select = select(*(_table.c[name] for name in Resource._fields))
_select_listed = select(*(_table.c[name] for name in Listed._fields))
_select_one = _select.where(_table.c.arn == bindparam("arn"), _table.c.kind == bindparam("kind"))


def insert(
    tx: Connection,
    *,
    arn: str,
    kind: str,
    account: str,
    region: str,
    name: str,
    status: str,
    parent: str | None,
    body: dict[str, Any],
    private: dict[str, Any],
    unique_name: str | None,
    now: datetime,
    collaboration: str | None = None,
) -> Resource:
    """Add a resource.

    Parameters
    ----------
    parent : ARN of the resource it depends on, of any account; that one cannot be deleted from now on.
    collaboration : identifier of the collaboration that it was made in, for `page` to filter by.
    unique_name : what no other resource of this account, region and kind may have; None for nothing.

    Raises
    ------
    NameTaken : `unique_name` is taken; the transaction can go on.
    Missing : the parent, or the account, is not there (any more); the transaction has to be rolled back.
    """
    values: dict[str, Any] = {
        "arn": arn, "kind": kind, "account": account, "region": region, "name": name, "parent": parent,
        "collaboration": collaboration, "status": status, "version": 1, "created": now, "updated": now,
        "body": body, "private": private,
    }  # fmt: skip
    statement = insert_new(tx, _table, "account", "region", "kind", "unique_name")
    try:
        sequence = tx.scalar(
            statement.values(**values, unique_name=unique_name).returning(_table.c.sequence),
        )
    except IntegrityError as error:
        if "foreign key" not in str(error.orig).lower():
            raise
        raise Missing("parent or account", parent or account) from error
    if sequence is None:
        raise NameTaken(f"the name {unique_name} is taken by another {kind}.")
    return Resource(sequence=sequence, **values)


def load(tx: Connection, scope: Scope, kind: str, arn: str) -> Resource:
    """The resource; raises Missing when there is none of that kind within the scope."""
    row = tx.execute(_select_one, {"arn": arn, "kind": kind}).one_or_none()
    if row is None or scope.account not in (None, row.account) or scope.region not in (None, row.region):
        raise Missing(kind, arn)
    return Resource(*row)


def page(
    tx: Connection,
    scope: Scope,
    kind: str,
    *,
    limit: int,
    before: int | None = None,
    parent: str | None = None,
    status: str | None = None,
    collaboration: str | None = None,
) -> list[Listed]:
    """Up to `limit` resources, newest first, whose sequence is below `before`. A filter of None lets all pass.

    Pass the last one's sequence as `before` for the next page: no insert or delete between makes a page skip
    or repeat a resource.
    """
    filters = {"parent": parent, "status": status, "collaboration": collaboration}
    equals = {"kind": kind, "account": scope.account, "region": scope.region, **filters}
    given: dict[str, Any] = {column: value for column, value in equals.items() if value is not None}
    statement = _page(tuple(given), before is not None)
    rows = tx.execute(statement, {**given, "before": before, "limit": limit}).all()
    return [Listed(*row) for row in rows]


@cache  # to build the statement takes as long as to run it
def _page(filters: tuple[str, ...], goes_on: bool) -> Select[Any]:
    statement = _select_listed.where(*(_table.c[column] == bindparam(column) for column in filters))
    if goes_on:
        statement = statement.where(_table.c.sequence < bindparam("before"))
    return statement.order_by(_table.c.sequence.desc()).limit(bindparam("limit", type_=Integer))


def count(
    tx: Connection,
    scope: Scope,
    kind: str,
    *,
    statuses: Collection[str] | None = None,
    parent: str | None = None,
) -> int:
    """How many; under a quota call `accounts.lock` first, or two transactions may both find room."""
    equals = {"kind": kind, "account": scope.account, "region": scope.region, "parent": parent}
    filters = (_table.c[name] == value for name, value in equals.items() if value is not None)
    statement = select(func.count()).select_from(_table).where(*filters)
    if statuses is not None:
        statement = statement.where(_table.c.status.in_(list(statuses)))
    return tx.scalar(statement) or 0


def has_children(tx: Connection, arn: str) -> bool:
    """Whether a resource of any account has `arn` as its parent."""
    return bool(tx.scalar(select(exists().where(_table.c.parent == arn))))


def update(
    tx: Connection,
    resource: Resource,
    *,
    now: datetime,
    status: str | None = None,
    body: dict[str, Any] | None = None,
    private: dict[str, Any] | None = None,
    parent: str | None = None,
) -> Resource:
    """Change what is given and return the resource as it is then.

    Raises
    ------
    Stale : somebody changed or deleted it since `resource` was read.
    Missing : there is no such parent; the transaction has to be rolled back.
    """
    given = {"status": status, "body": body, "private": private, "parent": parent}
    values: dict[str, Any] = {column: value for column, value in given.items() if value is not None}
    values |= {"version": resource.version + 1, "updated": now}
    try:
        result = tx.execute(sql_update(_table).where(*_this_version(resource)).values(**values))
    except IntegrityError as error:
        raise Missing("parent", str(parent)) from error
    if result.rowcount != 1:
        raise Stale(f"{resource.arn} was changed by another request.")
    return resource._replace(**values)


def delete(tx: Connection, resource: Resource | Listed) -> None:
    """Remove the resource and its jobs.

    Raises
    ------
    Stale : somebody changed or deleted it since `resource` was read.
    InUse : it is the parent of another; the transaction has to be rolled back.
    """
    try:
        result = tx.execute(sql_delete(_table).where(*_this_version(resource)))
    except IntegrityError as error:
        raise InUse(f"another resource depends on {resource.arn}.") from error
    if result.rowcount != 1:
        raise Stale(f"{resource.arn} was changed by another request.")


def _this_version(resource: Resource | Listed) -> tuple[Any, Any]:
    return _table.c.sequence == resource.sequence, _table.c.version == resource.version
