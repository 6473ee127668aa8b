"""Accounts, buckets and tables from the command line, with a server running and without."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import boto3
import pytest

from tests.cli.conftest import CommandLine
from tests.server import running

PUBLISHER, ADVERTISER = "111122223333", "444455556666"


@pytest.fixture
def publisher(cli: CommandLine) -> CommandLine:
    cli.done("account", "create", PUBLISHER, "--name", "publisher")
    return cli


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """An account with a bucket, for commands that are refused and so change nothing."""
    cli = CommandLine(tmp_path_factory.mktemp("shop") / "data")
    cli.done("account", "create", PUBLISHER, "--name", "publisher")
    cli.done("bucket", "create", "publisher-data", "--account", PUBLISHER)
    return cli


def put_csv(cli: CommandLine, text: str, name: str = "part-0.csv") -> str:
    """Lay a file into a bucket of the publisher, as an upload would; returns the location."""
    directory = cli.data_dir / "s3" / PUBLISHER / "publisher-data" / "clicks"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text)
    return "s3://publisher-data/clicks/"


def test_a_new_account_is_given_a_key_as_json(cli: CommandLine) -> None:
    key = json.loads(cli.done("account", "create", PUBLISHER, "--name", "publisher", "--json"))
    assert list(key) == ["accountId", "accessKeyId", "secretAccessKey"]
    assert key["accountId"] == PUBLISHER
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", key["accessKeyId"])
    assert len(key["secretAccessKey"]) == 40


def test_the_secret_is_nowhere_on_the_disk_in_the_clear(cli: CommandLine) -> None:
    key = json.loads(cli.done("account", "create", PUBLISHER, "--name", "publisher", "--json"))
    files = [path for path in cli.data_dir.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if key["secretAccessKey"].encode() in path.read_bytes()] == []


def test_without_json_the_key_is_an_aws_profile_that_boto3_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "data") as server:
        text = CommandLine(tmp_path / "data").done("account", "create", PUBLISHER, "--name", "the publisher")
        config, credentials = text.split("# in ~/.aws/credentials")
        (tmp_path / "config").write_text(config)
        (tmp_path / "credentials").write_text(credentials)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        session = boto3.session.Session(profile_name="the publisher")
        api = session.client("cleanroomsml")
        assert api.meta.endpoint_url == server.urls["apiUrl"]
        assert session.client("cleanrooms").meta.endpoint_url == server.urls["apiUrl"]
        assert api.list_training_datasets()["trainingDatasets"] == []
        s3 = session.client("s3")
        s3.create_bucket(Bucket="made-through-s3")
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["made-through-s3"]


def test_a_profile_is_plain_ini(cli: CommandLine) -> None:
    text = cli.done("account", "create", PUBLISHER, "--name", "publisher")
    parsed = configparser.ConfigParser()
    parsed.read_string(text)
    assert parsed["profile publisher"]["region"] == "us-east-1"
    assert parsed["publisher"]["aws_access_key_id"].startswith("AKIA")


def test_accounts_are_listed_with_their_keys_and_without_their_secrets(cli: CommandLine) -> None:
    assert "No account yet" in cli.done("account", "list")
    key = json.loads(cli.done("account", "create", PUBLISHER, "--name", "publisher", "--json"))
    cli.done("account", "create", ADVERTISER, "--name", "advertiser")
    listed = json.loads(cli.done("account", "list", "--json"))
    assert [(row["accountId"], row["name"]) for row in listed] == [(PUBLISHER, "publisher"), (ADVERTISER, "advertiser")]
    assert listed[0]["accessKeyIds"] == [key["accessKeyId"]]
    for words in (cli.done("account", "list"), json.dumps(listed)):
        assert key["secretAccessKey"] not in words


@pytest.mark.parametrize("account_id", ["12345678901", "1234567890123", "11112222333a", "", "\uff11" * 12])
def test_an_account_id_has_twelve_digits(cli: CommandLine, account_id: str) -> None:
    assert "twelve digits" in cli.refused("account", "create", account_id, "--name", "publisher")


@pytest.mark.parametrize("name", ["", "[x]", "a\nb", "-a", "x" * 65])
def test_an_account_name_must_fit_into_a_profile(cli: CommandLine, name: str) -> None:
    assert "--name" in cli.refused("account", "create", PUBLISHER, f"--name={name}")
    assert not cli.data_dir.exists()


def test_an_account_is_registered_once(publisher: CommandLine) -> None:
    words = publisher.refused("account", "create", PUBLISHER, "--name", "again")
    assert f"There is an account {PUBLISHER} already" in words


def test_a_bucket_belongs_to_its_account(publisher: CommandLine) -> None:
    publisher.done("bucket", "create", "publisher-data", "--account", PUBLISHER)
    assert (publisher.data_dir / "s3" / PUBLISHER / "publisher-data").is_dir()
    listed = json.loads(publisher.done("bucket", "list", "--json"))
    assert [(row["bucket"], row["account"]) for row in listed] == [("publisher-data", PUBLISHER)]
    assert "No bucket yet" in publisher.done("bucket", "list", "--account", ADVERTISER)


@pytest.mark.parametrize("name", ["ab", "Upper", "under_score", "dash-", "dot.", "a..b", "x" * 64, "../up", "has/key"])
def test_a_bucket_name_follows_s3(shop: CommandLine, name: str) -> None:
    assert "is no bucket name" in shop.refused("bucket", "create", name, "--account", PUBLISHER)


def test_a_bucket_is_made_once_and_for_an_account_that_exists(publisher: CommandLine) -> None:
    publisher.done("bucket", "create", "publisher-data", "--account", PUBLISHER)
    publisher.done("account", "create", ADVERTISER, "--name", "advertiser")
    taken = publisher.refused("bucket", "create", "publisher-data", "--account", ADVERTISER)
    assert f"There is a bucket publisher-data already; it belongs to account {PUBLISHER}" in taken
    nobody = publisher.refused("bucket", "create", "other", "--account", "999900001111")
    assert "There is no account 999900001111" in nobody


def test_a_table_shows_the_columns_that_were_inferred(publisher: CommandLine) -> None:
    publisher.done("bucket", "create", "publisher-data", "--account", PUBLISHER)
    location = put_csv(publisher, "user_id,item_id,ts,score\nu1,7,1700000000,0.5\nu2,8,1700000001,0.25\n")
    options = ["--database", "shop", "--table", "clicks", "--location", location, "--format", "csv"]
    shown = publisher.done("table", "create", "--account", PUBLISHER, *options)
    assert re.findall(r"^(\w+) +(\w+)$", shown, re.MULTILINE) == [
        ("COLUMN", "TYPE"),
        ("user_id", "string"),
        ("item_id", "bigint"),
        ("ts", "bigint"),
        ("score", "double"),
    ]
    listed = json.loads(publisher.done("table", "list", "--json"))
    assert [(row["account"], row["database"], row["table"]) for row in listed] == [(PUBLISHER, "shop", "clicks")]
    assert listed[0]["columns"] == ["user_id string", "item_id bigint", "ts bigint", "score double"]
    again = publisher.refused("table", "create", "--account", PUBLISHER, *options)
    assert "has a table shop.clicks already" in again


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("publisher-data/clicks", "must begin with s3://"),
        ("s3://publisher-data/nothing/", "There is no file at s3://publisher-data/nothing/"),
        ("s3://somebody-elses/clicks/", "not a bucket of account"),
        ("s3://publisher-data/../clicks/", '".."'),
    ],
)
def test_a_table_needs_files_of_its_own_account(shop: CommandLine, location: str, told: str) -> None:
    options = ["--database", "shop", "--table", "clicks", "--location", location, "--format", "csv"]
    assert told in shop.refused("table", "create", "--account", PUBLISHER, *options)
    assert json.loads(shop.done("table", "list", "--json")) == []


def test_where_glue_holds_the_tables_none_is_made_here(shop: CommandLine) -> None:
    options = ["--database", "shop", "--table", "t", "--location", "s3://publisher-data/t/", "--format", "csv"]
    url = "http://127.0.0.1:5000"
    words = shop.refused("table", "create", "--account", PUBLISHER, *options, WHITEROOM_GLUE_ENDPOINT_URL=url)
    assert f"Tables come from the Glue endpoint {url}" in words


def test_a_table_of_files_that_are_not_what_they_say_is_refused_by_the_file(shop: CommandLine) -> None:
    location = put_csv(shop, "this is no parquet", "part-0.parquet")
    options = ["--database", "shop", "--table", "clicks", "--location", location, "--format", "parquet"]
    words = shop.refused("table", "create", "--account", PUBLISHER, *options)
    assert "s3://publisher-data/clicks/part-0.parquet" in words
