"""Accounts and their access keys. Secrets are stored sealed only. Knows no request and no signature."""

from __future__ import annotations

import re
import secrets as random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, bindparam, insert, select

from whiteroom.store import schema
from whiteroom.store.database import insert_new

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class Sealer(Protocol):
    """Encrypts so that what was sealed opens with the same context only."""

    def seal(self, plain: bytes, *, context: bytes) -> bytes: ...

    def open(self, sealed: bytes, *, context: bytes) -> bytes: ...


class AccountExists(Exception):
    """There is an account of that id already."""


class NoAccount(LookupError):
    """There is no account of that id."""


@dataclass(frozen=True)
class Account:
    id: str
    name: str
    created: datetime


@dataclass(frozen=True)
class NewKey:
    """A key just made: the only time its secret is at hand."""

    account_id: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


def create(tx: Connection, secrets: Sealer, account_id: str, name: str, now: datetime) -> NewKey:
    """Register an account and its first key. Raises AccountExists; ValueError unless the id has 12 digits."""
    if not re.fullmatch(r"[0-9]{12}", account_id):
        raise ValueError(f"an account id has 12 digits, as 111122223333; {account_id!r} does not.")
    statement = insert_new(tx, schema.account, "id").values(id=account_id, name=name, created=now)
    if tx.scalar(statement.returning(schema.account.c.id)) is None:
        raise AccountExists(f"there is an account {account_id} already.")
    return add_key(tx, secrets, account_id, now)


def add_key(tx: Connection, secrets: Sealer, account_id: str, now: datetime) -> NewKey:
    """Make one more key for an account. Raises NoAccount."""
    lock(tx, account_id)
    key = NewKey(
        account_id,
        "AKIA" + "".join(random.choice(_BASE32) for _ in range(16)),
        "".join(random.choice(_BASE64) for _ in range(40)),
    )
    sealed = secrets.seal(key.secret_access_key.encode(), context=secret_context(key.access_key_id))
    tx.execute(
        insert(schema.access_key).values(id=key.access_key_id, account=account_id, sealed_secret=sealed, created=now)
    )
    return key


def secret_context(access_key_id: str) -> bytes:
    """What a key's secret is sealed with: a row moved to another key does not open."""
    return b"access_key:" + access_key_id.encode()


_find_key = select(schema.access_key.c.account, schema.access_key.c.sealed_secret).where(
    schema.access_key.c.id == bindparam("id")
)


def find_key(tx: Connection, access_key_id: str) -> tuple[str, bytes] | None:
    """The key's account id and sealed secret (open it with `secret_context`); None for an unknown key."""
    row = tx.execute(_find_key, {"id": access_key_id}).one_or_none()
    return None if row is None else (row.account, row.sealed_secret)


def listing(tx: Connection) -> list[Account]:
    """Every account, by id."""
    columns = schema.account.c
    rows = tx.execute(select(columns.id, columns.name, columns.created).order_by(columns.id))
    return [Account(*row) for row in rows]


def key_ids(tx: Connection, account_id: str) -> list[str]:
    """The account's access key ids, oldest first."""
    columns = schema.access_key.c
    statement = select(columns.id).where(columns.account == account_id).order_by(columns.created, columns.id)
    return list(tx.scalars(statement))


def lock(tx: Connection, account_id: str) -> None:
    """Let no other transaction that asks for this pass until this one ends: what is counted next stays true.

    Raises NoAccount.
    """
    statement = select(schema.account.c.id).where(schema.account.c.id == account_id)
    if tx.scalar(statement.with_for_update(key_share=True)) is None:
        raise NoAccount(f"there is no account {account_id}.")
