"""Which account owns which bucket. Knows no file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import IntegrityError

from whiteroom.store.accounts import NoAccount
from whiteroom.store.database import insert_new
from whiteroom.store.schema import bucket


class BucketTaken(Exception):
    """A bucket of that name exists; names are unique over all accounts, as on S3."""


@dataclass(frozen=True)
class Bucket:
    name: str
    account: str
    created: datetime


def create(tx: Connection, name: str, account: str, now: datetime) -> None:
    """Give a new bucket to an account. Raises BucketTaken, whoever has it, and NoAccount."""
    statement = insert_new(tx, bucket, "name").values(name=name, account=account, created=now)
    try:
        taken = tx.scalar(statement.returning(bucket.c.name)) is None
    except IntegrityError as error:
        raise NoAccount(f"there is no account {account}.") from error
    if taken:
        raise BucketTaken(f"there is a bucket {name} already.")


_owner = select(bucket.c.account).where(bucket.c.name == bindparam("name"))


def owner(tx: Connection, name: str) -> str | None:
    """The account that has the bucket; None when nobody has."""
    return tx.scalar(_owner, {"name": name})


def listing(tx: Connection, account: str | None) -> list[Bucket]:
    """An account's buckets by name; everybody's when `account` is None."""
    statement = select(bucket.c.name, bucket.c.account, bucket.c.created)
    if account is not None:
        statement = statement.where(bucket.c.account == account)
    return sorted((Bucket(*row) for row in tx.execute(statement)), key=lambda b: b.name)
