"""Both catalogs: our own on a real database, AWS Glue's API on a moto server."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.data.conftest import ADVERTISER, PUBLISHER
from tests.data.test_tables import put, rows
from whiteroom.config import Settings
from whiteroom.data.catalog import BuiltInCatalog, Catalog, GlueCatalog, from_settings
from whiteroom.data.errors import DataError
from whiteroom.data.files import AccountFiles
from whiteroom.data.keys import SecretBox
from whiteroom.store import accounts, tables
from whiteroom.store.database import Database
from whiteroom.store.tables import CatalogTable, Column

SERDES = {
    "parquet": (
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
    ),
    "csv": ("org.apache.hadoop.mapred.TextInputFormat", "org.apache.hadoop.hive.serde2.OpenCSVSerde"),
    "json": ("org.apache.hadoop.mapred.TextInputFormat", "org.openx.data.jsonserde.JsonSerDe"),
}
TABS = {"SerializationLibrary": "LazySimpleSerDe", "Parameters": {"field.delim": "\t"}}
COLUMNS = [{"Name": "user_id", "Type": "string"}, {"Name": "item_id", "Type": "bigint"}]


def failure(catalog: Catalog, account: str, database: str, name: str) -> DataError:
    with pytest.raises(DataError) as raised:
        catalog.table(account, database, name)
    return raised.value


def test_the_built_in_catalog_gives_each_account_its_own_tables(settings: Settings) -> None:
    database = Database(f"sqlite:///{settings.data_dir / 'whiteroom.db'}")
    database.migrate()
    table = CatalogTable(PUBLISHER, "db", "t", "s3://publisher-data/t", "csv", (Column("user_id", "string"),))
    with database.write() as tx:
        accounts.create(tx, SecretBox(bytes(32)), PUBLISHER, "publisher", datetime.now(UTC))
        tables.put(tx, table)
    catalog = from_settings(settings, database)
    assert isinstance(catalog, BuiltInCatalog)
    assert catalog.table(PUBLISHER, "db", "t") == table
    for place in ((ADVERTISER, "db", "t"), (PUBLISHER, "other", "t"), (PUBLISHER, "db", "other")):
        assert failure(catalog, *place).status_code == "TABLE_NOT_FOUND"
    database.close()


class Glue:
    """A database in a moto server's Glue, and our catalog over it."""

    def __init__(self, url: str) -> None:
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        self.client = boto3.client("glue", endpoint_url=url, region_name="us-east-1", **keys)
        self.database = f"db-{uuid.uuid4()}"
        self.client.create_database(DatabaseInput={"Name": self.database})
        settings = Settings(glue_endpoint_url=url, glue_access_key_id="key", glue_secret_access_key="secret")
        self.catalog = GlueCatalog(settings)

    def create(self, name: str, format_: str = "parquet", **changes: Any) -> None:
        input_format, serde = SERDES[format_]
        storage = {
            "Columns": COLUMNS,
            "Location": "s3://publisher-data/t/",
            "InputFormat": input_format,
            "SerdeInfo": {"SerializationLibrary": serde, "Parameters": {}},
        } | changes.pop("StorageDescriptor", {})
        table = {"Name": name, "TableType": "EXTERNAL_TABLE", "StorageDescriptor": storage} | changes
        self.client.create_table(DatabaseName=self.database, TableInput=table)

    def table(self, name: str) -> CatalogTable:
        return self.catalog.table(PUBLISHER, self.database, name)

    def refusal(self, name: str) -> str:
        error = failure(self.catalog, PUBLISHER, self.database, name)
        assert error.status_code == "UNSUPPORTED_DATA_FORMAT"
        assert f"{self.database}.{name}" in error.message
        return error.message


@pytest.fixture
def glue(moto: str) -> Glue:
    return Glue(moto)


@pytest.mark.parametrize("format_", list(SERDES))
def test_a_glue_table_is_described(glue: Glue, format_: str) -> None:
    glue.create("t", format_)
    columns = (Column("user_id", "string"), Column("item_id", "bigint"))
    assert glue.table("t") == CatalogTable(PUBLISHER, glue.database, "t", "s3://publisher-data/t/", format_, columns)


def test_the_classification_of_a_crawler_tells_the_format_when_nothing_else_does(glue: Glue) -> None:
    bare = {"InputFormat": "", "SerdeInfo": {}}
    glue.create("t", StorageDescriptor=bare, Parameters={"classification": "json"})
    assert glue.table("t").format == "json"
    glue.create("u", StorageDescriptor=bare, Parameters={"classification": "orc"})
    assert "is of orc" in glue.refusal("u")


def test_locations_of_hadoop_are_s3_locations(glue: Glue) -> None:
    glue.create("t", StorageDescriptor={"Location": "s3a://publisher-data/t"})
    assert glue.table("t").location == "s3://publisher-data/t"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"TableType": "VIRTUAL_VIEW"}, "is a view"),
        ({"Parameters": {"table_type": "ICEBERG"}}, "open table format ICEBERG"),
        ({"Parameters": {"spark.sql.sources.provider": "delta"}}, "open table format delta"),
        ({"Parameters": {"storage.location.template": "s3://publisher-data/${day}"}}, "has a template"),
        ({"Parameters": {"skip.header.line.count": "2"}}, "more than one line of header"),
        ({"StorageDescriptor": {"Location": "hdfs://namenode/t"}}, "does not lie in S3"),
        ({"StorageDescriptor": {"SerdeInfo": {"SerializationLibrary": "OrcSerde"}, "InputFormat": "orc"}}, "OrcSerde"),
        ({"StorageDescriptor": {"SerdeInfo": TABS}}, "separates its fields by '\\t'"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_with_the_reason(glue: Glue, changes: dict[str, Any], why: str) -> None:
    glue.create("t", "csv", **changes)
    assert why in glue.refusal("t")


def test_partitions_below_the_table_are_read_as_columns(glue: Glue, publisher: AccountFiles, bucket: Path) -> None:
    glue.create("t", "csv", PartitionKeys=[{"Name": "year", "Type": "int"}])
    for year in (2023, 2024):
        put(bucket, f"t/year={year}/a.csv", f"user_id,item_id\nu,{year}\n")
        glue.client.create_partition(
            DatabaseName=glue.database,
            TableName="t",
            PartitionInput={
                "Values": [str(year)],
                "StorageDescriptor": {"Location": f"s3://publisher-data/t/year={year}"},
            },
        )
    found = rows(publisher, glue.table("t"), ["user_id", "year"])
    assert found == [{"user_id": "u", "year": 2023}, {"user_id": "u", "year": 2024}]


def test_a_partition_outside_the_tables_location_is_refused(glue: Glue) -> None:
    glue.create("t", PartitionKeys=[{"Name": "year", "Type": "int"}])
    elsewhere = {"Values": ["2024"], "StorageDescriptor": {"Location": "s3://publisher-data/t-old/year=2024"}}
    glue.client.create_partition(DatabaseName=glue.database, TableName="t", PartitionInput=elsewhere)
    assert "outside the table's location" in glue.refusal("t")


def test_a_table_that_glue_does_not_know_is_not_found(glue: Glue) -> None:
    for database, name in ((glue.database, "absent"), ("absent", "t")):
        assert failure(glue.catalog, PUBLISHER, database, name).status_code == "TABLE_NOT_FOUND"


def test_a_glue_endpoint_that_is_down_is_unavailable(settings: Settings) -> None:
    catalog = GlueCatalog(
        replace(settings, glue_endpoint_url="http://127.0.0.1:9", glue_access_key_id="k", glue_secret_access_key="s")
    )
    assert failure(catalog, PUBLISHER, "db", "t").status_code == "CATALOG_UNAVAILABLE"
