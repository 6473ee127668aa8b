"""Where a named table's files are and what columns they have: our own catalog, or AWS Glue's API. Reads no file."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

from whiteroom.data.errors import DataError
from whiteroom.store import tables
from whiteroom.store.tables import CatalogTable, Column

if TYPE_CHECKING:
    from whiteroom.config import Settings
    from whiteroom.store.database import Database

_SERDES: Final = (
    ("parquet", "parquet"),
    ("opencsvserde", "csv"),
    ("lazysimpleserde", "csv"),
    ("jsonserde", "json"),
)


class Catalog(Protocol):
    """Describes tables."""

    def table(self, account: str, database: str, name: str) -> CatalogTable:
        """An account's table. Raises DataError TABLE_NOT_FOUND, UNSUPPORTED_DATA_FORMAT, CATALOG_UNAVAILABLE."""


def from_settings(settings: Settings, database: Database) -> Catalog:
    """The Glue catalog when `settings.glue_endpoint_url` is set, else the built-in one."""
    return GlueCatalog(settings) if settings.glue_endpoint_url else BuiltInCatalog(database)


class BuiltInCatalog:
    """The tables that `whiteroom table create` registered."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def table(self, account: str, database: str, name: str) -> CatalogTable:
        with self._database.read() as tx:
            found = tables.get(tx, account, database, name)
        if found is None:
            raise _not_found(account, database, name)
        return found


class GlueCatalog:
    """The tables of an AWS Glue endpoint; an account's catalog is the one whose CatalogId is the account."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def table(self, account: str, database: str, name: str) -> CatalogTable:
        from botocore.exceptions import BotoCoreError, ClientError

        place = {"CatalogId": account, "DatabaseName": database}
        try:
            found = self._client.get_table(**place, Name=name)["Table"]
            table = describe(account, database, found)
            if found.get("PartitionKeys"):
                pages = self._client.get_paginator("get_partitions").paginate(
                    **place, TableName=name, ExcludeColumnSchema=True
                )
                for partition in (each for page in pages for each in page["Partitions"]):
                    _check_partition(table, partition)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "EntityNotFoundException":
                raise _not_found(account, database, name) from error
            raise DataError(
                "CATALOG_UNAVAILABLE", f"The catalog refused to describe {database}.{name}: {code}."
            ) from error
        except BotoCoreError as error:
            raise DataError("CATALOG_UNAVAILABLE", f"The catalog did not describe {database}.{name}.") from error
        return table

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "glue",
            endpoint_url=self._settings.glue_endpoint_url,
            region_name=self._settings.s3_region,
            aws_access_key_id=self._settings.glue_access_key_id or None,
            aws_secret_access_key=self._settings.glue_secret_access_key or None,
            config=Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 3}),
        )


def describe(account: str, database: str, glue_table: dict[str, Any]) -> CatalogTable:
    """A table as Glue's GetTable gives it; partition keys follow the other columns.

    Raises DataError UNSUPPORTED_DATA_FORMAT for views, open table formats, and layouts that are not read.
    """
    name = glue_table["Name"]
    storage = glue_table.get("StorageDescriptor") or {}
    parameters = glue_table.get("Parameters") or {}
    serde = (storage.get("SerdeInfo") or {}).get("Parameters") or {}
    location = re.sub(r"^s3[an]://", "s3://", storage.get("Location") or "")
    open_format = parameters.get("table_type") or parameters.get("spark.sql.sources.provider", "")
    separator = serde.get("separatorChar") or serde.get("field.delim") or ","
    refusals = (
        (glue_table.get("TableType") == "VIRTUAL_VIEW", "is a view"),
        (open_format.lower() in ("iceberg", "delta", "hudi"), f"is of the open table format {open_format}"),
        (not location.startswith("s3://"), "does not lie in S3"),
        ("storage.location.template" in parameters, "has a template for its partitions' locations"),
        (separator != ",", f"separates its fields by {separator!r}, not by commas"),
        (parameters.get("skip.header.line.count", "1") not in ("0", "1"), "has more than one line of header"),
    )
    for refused, why in refusals:
        if refused:
            raise DataError("UNSUPPORTED_DATA_FORMAT", f"The table {database}.{name} {why}; that is not read.")
    columns = [*(storage.get("Columns") or []), *(glue_table.get("PartitionKeys") or [])]
    return CatalogTable(
        account=account,
        database=database,
        name=name,
        location=location,
        format=_format(f"{database}.{name}", storage, parameters),
        columns=tuple(Column(column["Name"], column.get("Type", "string")) for column in columns),
    )


def _format(table: str, storage: dict[str, Any], parameters: dict[str, str]) -> str:
    library = (storage.get("SerdeInfo") or {}).get("SerializationLibrary") or ""
    for described in (library, storage.get("InputFormat") or ""):
        for part, name in _SERDES:
            if part in described.lower():
                return name
    classification = parameters.get("classification", "").lower()
    if classification in ("parquet", "csv", "json"):
        return classification
    what = library or classification or "an unknown format"
    raise DataError("UNSUPPORTED_DATA_FORMAT", f"The table {table} is of {what}; Parquet, CSV and JSON are read.")


def _check_partition(table: CatalogTable, partition: dict[str, Any]) -> None:
    location = re.sub(r"^s3[an]://", "s3://", (partition.get("StorageDescriptor") or {}).get("Location") or "")
    if location and not location.startswith(table.location.rstrip("/") + "/"):
        raise DataError(
            "UNSUPPORTED_DATA_FORMAT",
            f"A partition of the table {table.database}.{table.name} lies outside the table's location.",
        )


def _not_found(account: str, database: str, name: str) -> DataError:
    return DataError("TABLE_NOT_FOUND", f"Account {account} has no table {database}.{name}.")
