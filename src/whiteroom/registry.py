"""What an operator registers and reads from the command line: accounts, buckets, tables, the audit, what an audience
model learned. Needs no server.

Rows are dicts in the order in which people read them. Knows no terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from whiteroom import addresses, app, datadir
from whiteroom.problems import Problem
from whiteroom.profiles import profile

if TYPE_CHECKING:
    from whiteroom.config import Settings
    from whiteroom.engines.lookalike.report import Report
    from whiteroom.store.accounts import NewKey
    from whiteroom.store.database import Database


def create_account(settings: Settings, account_id: str, name: str) -> NewKey:
    """Register an account with its first access key. Raises Problem when there is one of that id."""
    from whiteroom.data.keys import SecretBox
    from whiteroom.store import accounts

    with _database(settings) as database, database.write() as tx:
        secrets = SecretBox.from_settings(settings)
        try:
            return accounts.create(tx, secrets, account_id, name, datetime.now(UTC))
        except accounts.AccountExists as error:
            raise Problem(f"There is an account {account_id} already; `whiteroom account list` shows it.") from error


def create_key(settings: Settings, account_id: str, name: str) -> NewKey:
    """One more access key for an account, which is registered where it is not."""
    from whiteroom.data.keys import SecretBox
    from whiteroom.store import accounts

    with _database(settings) as database, database.write() as tx:
        secrets = SecretBox.from_settings(settings)
        try:
            return accounts.add_key(tx, secrets, account_id, datetime.now(UTC))
        except accounts.NoAccount:
            return accounts.create(tx, secrets, account_id, name, datetime.now(UTC))


def accounts(settings: Settings) -> list[dict[str, Any]]:
    """Every account with its access key ids; never a secret."""
    from whiteroom.store import accounts

    with _database(settings) as database, database.read() as tx:
        return [
            {
                "accountId": account.id,
                "name": account.name,
                "accessKeyIds": accounts.key_ids(tx, account.id),
                "created": _time(account.created),
            }
            for account in accounts.listing(tx)
        ]


def audit(settings: Settings, account_id: str, limit: int) -> list[dict[str, Any]]:
    """The newest decisions about an account's resources, with the reasons that only it may read."""
    from whiteroom.store import audit

    with _database(settings) as database, database.read() as tx:
        return [
            {
                "at": _time(event.at),
                "caller": event.detail.get("caller", ""),
                "operation": event.operation,
                "decision": "allowed" if event.allowed else "denied",
                "reason": event.reason,
                "resource": event.resource or "",
            }
            for event in audit.listing(tx, account_id, limit=limit)
        ]


def create_bucket(settings: Settings, name: str, account_id: str) -> None:
    """Make a bucket in the storage and in the register of owners; neither without the other.

    Raises Problem for a name that is none, a bucket that exists, whoever has it, and an unknown account.
    """
    from whiteroom.data.files import Files, parse_s3_uri
    from whiteroom.store import buckets
    from whiteroom.store.accounts import NoAccount

    try:
        names_a_bucket = parse_s3_uri(f"s3://{name}") == (name, "")
    except ValueError:
        names_a_bucket = False
    if not names_a_bucket:
        raise Problem(
            f"{name!r} is no bucket name: 3 to 63 lower-case letters, digits, dots and hyphens, "
            "beginning and ending with a letter or a digit."
        )
    with _database(settings) as database, database.write() as tx:
        try:
            buckets.create(tx, name, account_id, datetime.now(UTC))
        except buckets.BucketTaken as error:
            owner = buckets.owner(tx, name)
            raise Problem(f"There is a bucket {name} already; it belongs to account {owner}.") from error
        except NoAccount as error:
            raise _no_account(account_id) from error
        files = Files.from_settings(settings, owner=lambda _: account_id)
        files.storage.make_bucket(account_id, name)


def buckets(settings: Settings, account_id: str | None) -> list[dict[str, Any]]:
    """An account's buckets; everybody's when `account_id` is None."""
    from whiteroom.store import buckets

    with _database(settings) as database, database.read() as tx:
        return [
            {"bucket": bucket.name, "account": bucket.account, "created": _time(bucket.created)}
            for bucket in buckets.listing(tx, account_id)
        ]


def create_table(
    settings: Settings, account_id: str, database_name: str, name: str, location: str, format_: str
) -> list[dict[str, Any]]:
    """Register the files under `location` as a table. Returns its columns, as rows to show.

    Raises Problem for an unknown account, a table that exists, files that cannot be read, and where tables come
    from a Glue endpoint.
    """
    from whiteroom.data.files import Files
    from whiteroom.data.tables import infer_columns
    from whiteroom.store import accounts, tables

    if settings.glue_endpoint_url:
        raise Problem(f"Tables come from the Glue endpoint {settings.glue_endpoint_url}; create them there.")
    with _database(settings) as database:
        with database.read() as tx:
            if account_id not in {account.id for account in accounts.listing(tx)}:
                raise _no_account(account_id)
        files = Files.from_settings(settings, owner=app.bucket_owner(database)).as_account(account_id)
        columns = infer_columns(files, location, format_)
        table = tables.CatalogTable(account_id, database_name, name, location, format_, tuple(columns))
        with database.write() as tx:
            try:
                tables.put(tx, table)
            except tables.TableExists as error:
                raise Problem(
                    f"Account {account_id} has a table {database_name}.{name} already; choose another name."
                ) from error
    return [{"column": column.name, "type": column.type} for column in table.columns]


def tables(settings: Settings, account_id: str | None) -> list[dict[str, Any]]:
    """An account's tables of the built-in catalog with their columns; everybody's when `account_id` is None."""
    from whiteroom.store import tables

    with _database(settings) as database, database.read() as tx:
        return [
            {
                "account": table.account,
                "database": table.database,
                "table": table.name,
                "format": table.format,
                "location": table.location,
                "columns": [f"{column.name} {column.type}" for column in table.columns],
            }
            for table in tables.listing(tx, account_id)
        ]


def audience_model_report(settings: Settings, arn: str) -> Report:
    """What an audience model learned, for its owner. Raises Problem where there is no model of that ARN with files."""
    from whiteroom.engines.lookalike import ModelFileError
    from whiteroom.engines.lookalike.report import read_report
    from whiteroom.rooms import artifacts
    from whiteroom.rooms.kinds import AUDIENCE_MODEL
    from whiteroom.store import resources
    from whiteroom.store.resources import Scope

    with _database(settings) as database:
        with database.read() as tx:
            try:
                scope = Scope.service(why="the operator may see everything, and hands the report to the owner")
                model = resources.load(tx, scope, AUDIENCE_MODEL.name, arn)
            except resources.Missing as error:
                raise Problem(f"There is no audience model {arn}.") from error
        if "artifact" not in model.private:
            raise Problem(f"The audience model {arn} is {model.status}: nothing was learned that could be told.")
        facts, room = model.private["artifact"], app.build(settings, database)
        try:
            return read_report(artifacts.directory(room, facts), open=artifacts.opener(room, facts))
        except ModelFileError as error:
            raise Problem(str(error)) from error


def aws_profile(settings: Settings, name: str, key: NewKey) -> str:
    """The key as an AWS profile that points at the running server, or where one will listen."""
    running = datadir.running(settings.data_dir)
    api = running.api_url if running else addresses.url(settings.host, settings.port or 8080)
    s3 = running.s3_url if running else addresses.url(settings.host, settings.s3_port)
    endpoints = {"cleanroomsml": api, "cleanrooms": api}
    if settings.s3_endpoint_url:
        s3 = settings.s3_endpoint_url
    if s3 and settings.s3_port != -1:
        endpoints["s3"] = s3
    return profile(name, key.access_key_id, key.secret_access_key, endpoints)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    from whiteroom.data.errors import DataError

    datadir.prepare(settings.data_dir)
    database = app.open_database(settings)
    try:
        yield database
    except DataError as error:
        raise Problem(error.message) from error
    finally:
        database.close()


def _no_account(account_id: str) -> Problem:
    return Problem(f"There is no account {account_id}. Register it: whiteroom account create {account_id} --name NAME")


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
