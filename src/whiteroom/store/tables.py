"""The built-in catalog's tables: where a table's files are and what columns they have. Reads no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, select
from sqlalchemy.exc import IntegrityError

from whiteroom.store.accounts import NoAccount
from whiteroom.store.database import insert_new
from whiteroom.store.schema import catalog_table

_columns = catalog_table.c


class TableExists(Exception):
    """The account has a table of that name in that database already."""


@dataclass(frozen=True)
class Column:
    """A column's name and its AWS Glue type, as `bigint` or `array<string>`."""

    name: str
    type: str


@dataclass(frozen=True)
class CatalogTable:
    """`location` is an `s3://` URI; `format` one of `parquet`, `csv`, `json`."""

    account: str
    database: str
    name: str
    location: str
    format: str
    columns: tuple[Column, ...]


def put(tx: Connection, table: CatalogTable) -> None:
    """Add a table. Raises TableExists and NoAccount."""
    statement = insert_new(tx, catalog_table, "account", "database", "name").values(
        account=table.account,
        database=table.database,
        name=table.name,
        location=table.location,
        format=table.format,
        columns=[[column.name, column.type] for column in table.columns],
    )
    try:
        exists = tx.scalar(statement.returning(_columns.name)) is None
    except IntegrityError as error:
        raise NoAccount(f"there is no account {table.account}.") from error
    if exists:
        raise TableExists(f"account {table.account} has a table {table.database}.{table.name} already.")


def get(tx: Connection, account: str, database: str, name: str) -> CatalogTable | None:
    """An account's table; None when it has none of that name."""
    statement = _select(account).where(_columns.database == database, _columns.name == name)
    row = tx.execute(statement).one_or_none()
    return None if row is None else _from(row)


def listing(tx: Connection, account: str | None) -> list[CatalogTable]:
    """An account's tables by database and name; everybody's when `account` is None."""
    tables = (_from(row) for row in tx.execute(_select(account)))
    return sorted(tables, key=lambda table: (table.account, table.database, table.name))


def _select(account: str | None) -> Select[Any]:
    statement = select(*(_columns[name] for name in CatalogTable.__dataclass_fields__))
    return statement if account is None else statement.where(_columns.account == account)


def _from(row: Row[Any]) -> CatalogTable:
    columns = tuple(Column(*column) for column in row.columns)
    return CatalogTable(row.account, row.database, row.name, row.location, row.format, columns)
