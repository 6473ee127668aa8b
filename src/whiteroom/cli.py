"""The command line: options in, the right function called, errors told in a sentence.

Knows no HTTP and no SQL. Nothing heavy is imported before a command needs it, so that `--help` is instant.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whiteroom import __version__, config
from whiteroom.config import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whiteroom.engines.lookalike.report import Report

_ACCOUNT = re.compile(r"[0-9]{12}")
_ACCOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,63}")


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where its data lie, and pass it the Settings first."""

    @click.option("--data-dir", type=click.Path(path_type=Path), help="Directory of everything kept on disk.")
    @click.option("--database-url", help="SQLAlchemy URL; by default SQLite in the data directory.")
    @click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file (TOML).")
    @functools.wraps(command)
    def with_settings(
        *args: Any, data_dir: Path | None, database_url: str | None, config_file: Path | None, **options: Any
    ) -> Any:
        os.umask(0o077)  # what is kept is for the operator alone, also in a directory that others may enter
        own = {k: options.pop(k) for k in ("host", "port", "s3_port", "workers") if k in options}
        try:
            settings = config.load(config=config_file, data_dir=data_dir, database_url=database_url, **own)
        except SettingsError as error:
            raise click.ClickException(str(error)) from error
        return command(settings, *args, **options)

    return with_settings


def _account_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _ACCOUNT.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not an AWS account id, which has twelve digits.", context, parameter)
    return value


def _account_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _ACCOUNT_NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r}: use 1 to 64 letters, digits, spaces and ._@+-, beginning with a letter or a digit.",
            context,
            parameter,
        )
    return value


_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ONLY_ACCOUNT = click.option("--account", "account_id", callback=_account_id, help="Only its own.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="whiteroom")
def main() -> None:
    """Whiteroom: AWS Clean Rooms ML on your own machine, for AWS's own clients.

    \b
    whiteroom demo      shows the whole flow in under a minute
    whiteroom serve     starts the server
    """


@main.command()
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=int, help="Port of the API (default 8080; 0 takes a free one).")
@click.option("--s3-port", type=int, help="Port of the embedded S3 (default 9000; 0 a free one, -1 none).")
@click.option("--workers", type=int, help="Jobs that run at one time (default 2; 0 starts no worker).")
@click.option("--parent", type=int, hidden=True, help="Stop when this process dies.")
@_with_settings
def serve(settings: Settings, parent: int | None) -> None:
    """Start the API, the workers and the embedded S3 together."""
    from whiteroom import serve as server

    with _told():
        server.serve(settings, parent=parent)


@main.command(short_help="Run jobs for a server, on this or another machine.")
@click.option("--workers", type=int, help="Jobs that run at one time (default 2).")
@click.option("--parent", type=int, hidden=True, help="Stop when this process dies.")
@_with_settings
def worker(settings: Settings, parent: int | None) -> None:
    """Run jobs for servers on the same database, on this or another machine.

    Workers on several machines need PostgreSQL (--database-url), the buckets on an S3 endpoint
    (WHITEROOM_S3_ENDPOINT_URL), one server key (WHITEROOM_SERVER_KEY) and a data directory that they share.
    """
    from whiteroom import app

    with _told():
        app.run_worker(settings, parent=parent)


@main.command("run-job", hidden=True)
@click.argument("job_id", type=int)
@click.argument("attempt", type=int)
def run_job(job_id: int, attempt: int) -> None:
    """One attempt at one job, in a process of its own; the worker starts it with its settings."""
    from whiteroom import app

    raise SystemExit(app.run_job(config.load(), job_id, attempt))


@main.group()
def account() -> None:
    """Accounts and their access keys."""


@account.command("create")
@click.argument("account_id", callback=_account_id)
@click.option("--name", required=True, callback=_account_name, help="What people call the account.")
@click.option("--json", "as_json", is_flag=True, help="Print accountId, accessKeyId, secretAccessKey as JSON.")
@_with_settings
def create_account(settings: Settings, account_id: str, name: str, as_json: bool) -> None:
    """Register the account ACCOUNT_ID and print an access key, as an AWS profile or as JSON.

    The secret is shown this once.
    """
    from whiteroom import registry

    with _told():
        key = registry.create_account(settings, account_id, name)
        if as_json:
            document = {
                "accountId": key.account_id,
                "accessKeyId": key.access_key_id,
                "secretAccessKey": key.secret_access_key,
            }
            click.echo(json.dumps(document))
        else:
            click.echo(registry.aws_profile(settings, name, key))


@account.command("list")
@_AS_JSON
@_with_settings
def list_accounts(settings: Settings, as_json: bool) -> None:
    """List the accounts with their access key ids."""
    from whiteroom import registry

    with _told():
        _show(registry.accounts(settings), as_json, "No account yet: whiteroom account create 111122223333 --name …")


@main.group()
def bucket() -> None:
    """Buckets and the accounts that own them."""


@bucket.command("create")
@click.argument("name")
@click.option("--account", "account_id", required=True, callback=_account_id, help="The owner.")
@_with_settings
def create_bucket(settings: Settings, name: str, account_id: str) -> None:
    """Make the bucket NAME and give it to an account."""
    from whiteroom import registry

    with _told():
        registry.create_bucket(settings, name, account_id)
        click.echo(f"Bucket {name} belongs to account {account_id}: s3://{name}/")


@bucket.command("list")
@_ONLY_ACCOUNT
@_AS_JSON
@_with_settings
def list_buckets(settings: Settings, account_id: str | None, as_json: bool) -> None:
    """List the buckets with their owners."""
    from whiteroom import registry

    with _told():
        rows = registry.buckets(settings, account_id)
        _show(rows, as_json, "No bucket yet: whiteroom bucket create NAME --account ID")


@main.group()
def table() -> None:
    """Tables of the built-in catalog."""


@table.command("create")
@click.option("--account", "account_id", required=True, callback=_account_id, help="The owner.")
@click.option("--database", required=True, help="Database of the catalog.")
@click.option("--table", "name", required=True, help="Name of the table.")
@click.option("--location", required=True, help="s3://BUCKET/PREFIX of its files.")
@click.option("--format", "format_", type=click.Choice(["parquet", "csv", "json"]), required=True)
@_with_settings
def create_table(settings: Settings, account_id: str, database: str, name: str, location: str, format_: str) -> None:
    """Register the files under a location as a table; its columns are inferred and shown."""
    from whiteroom import registry

    with _told():
        columns = registry.create_table(settings, account_id, database, name, location, format_)
        click.echo(f"Table {database}.{name} of account {account_id} at {location}:")
        _show(columns, False, "")


@table.command("list")
@_ONLY_ACCOUNT
@_AS_JSON
@_with_settings
def list_tables(settings: Settings, account_id: str | None, as_json: bool) -> None:
    """List the tables with their columns."""
    from whiteroom import registry

    with _told():
        _show(registry.tables(settings, account_id), as_json, "No table yet: whiteroom table create --help")


@main.group("audience-model")
def audience_model() -> None:
    """What audience models learned."""


@audience_model.command("report")
@click.argument("arn")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw it into this file (SVG).")
@_AS_JSON
@_with_settings
def report_audience_model(settings: Settings, arn: str, picture: Path | None, as_json: bool) -> None:
    """Show the owner of the audience model ARN what it learned and how well it finds audiences.

    It names items and counts users: not for the accounts that bring seeds.
    """
    from whiteroom import registry

    with _told():
        report = registry.audience_model_report(settings, arn)
        if picture is not None:
            from whiteroom.engines.lookalike.report_picture import svg

            try:
                picture.write_text(svg(report), encoding="utf-8")
            except OSError as error:
                raise click.ClickException(f"Cannot write {picture}: {error.strerror}.") from error
        if as_json:
            click.echo(json.dumps(report.to_json(), indent=2))
        else:
            _show_report(report)


@main.command()
@click.option("--account", "account_id", required=True, callback=_account_id, help="Whose data it is about.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Newest so many.")
@_AS_JSON
@_with_settings
def audit(settings: Settings, account_id: str, limit: int, as_json: bool) -> None:
    """Show who was let at an account's resources or refused, and why."""
    from whiteroom import registry

    with _told():
        rows = registry.audit(settings, account_id, limit)
        _show(rows, as_json, f"Nothing is recorded for account {account_id}.")


@main.command("settings", short_help="Print the settings in force.")
@_with_settings
def show_settings(settings: Settings) -> None:
    """Print the settings in force; secrets are left out. docs/settings.md explains each."""
    for name, value in config.shown(settings).items():
        click.echo(f"{name} = {value}")


@main.command()
@click.option("--port", type=int, help="Port of the API that you mean to use.")
@click.option("--s3-port", type=int, help="Port of the embedded S3 that you mean to use.")
@_with_settings
def doctor(settings: Settings) -> None:
    """Check the environment; say what is missing and how to get it."""
    from whiteroom import doctor as examination

    raise SystemExit(examination.report(settings))


@main.command(short_help="Walk the whole lookalike flow, on made-up data or your own.")
@click.option("--interactions", type=click.Path(path_type=Path), help="Your own data: Parquet or CSV.")
@click.option("--seed", type=click.Path(path_type=Path), help="Your seed: ids as text, CSV, JSON Lines or Parquet.")
@click.option("--user-column", help="Column of the user ids, where its name does not tell.")
@click.option("--item-column", help="Column of the item ids.")
@click.option("--timestamp-column", help="Column of the times.")
@click.option("--output", type=click.Path(path_type=Path), default="demo-report", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep the server's data in this directory.")
@click.option("--keep", is_flag=True, help="Keep the server's data in a directory of its own.")
def demo(**options: Any) -> None:
    """Two accounts, a lookalike audience, from data to export: the whole flow through boto3.

    Without files of your own it makes up a population whose true audience is known.
    """
    from whiteroom.demo import run

    with _told():
        run.demo(run.Options(**options))


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors that a user can act on into one sentence; anything else is a bug and shows its trace."""
    from whiteroom.problems import Problem

    try:
        yield
    except Problem as error:
        raise click.ClickException(str(error)) from error


def _show_report(report: Report) -> None:
    from whiteroom.engines.lookalike.report import RECALL_AT, TOPS, VARIANCE

    learned = f"{report.n_learned_items:,} of {report.n_items:,}, from {report.n_learning_users:,} users"
    facts = {
        "users": f"{report.n_users:,}, {report.n_active_users:,} with two or more interactions",
        "interactions": f"{report.n_interactions:,}, {report.learned_share:.1%} of them with learned items",
        "items learned": learned,
        "users without any": f"{report.n_blank_users:,}",
        "axes of a user": f"{report.dimensions}, {report.n_main_axes} carry {VARIANCE:.0%} of the variance",
    }
    if len(report.probes) > 1:
        low, high = report.interval
        found = f"{report.recall:.2f} ({low:.2f} to {high:.2f}) in the top {RECALL_AT:.0%}; by chance {RECALL_AT:.2f}"
        facts["recall of probes"] = found
    _show([{"what": what, "learned": value} for what, value in facts.items()], False, "")
    click.echo()
    _show([{"popularItem": item, "users": f"{users:,}"} for item, users in report.popular], False, "")
    click.echo()
    rows = [
        {"probeItem": probe.item, "users": f"{probe.users:,}", "seed": probe.seed, "hidden": probe.hidden}
        | {f"top {top:.0%}": f"{found:.2f}" for top, found in zip(TOPS, probe.found, strict=True)}
        for probe in report.probes
    ]
    _show(rows, False, "No item has enough users, and not too many, for a probe audience.")


def _show(rows: Sequence[dict[str, Any]], as_json: bool, nothing: str) -> None:
    """Rows as JSON, or as columns that line up."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
    elif not rows:
        click.echo(nothing)
    else:
        cells = [[_cell(value) for value in row.values()] for row in rows]
        heads = [re.sub(r"([A-Z])", r" \1", key).upper() for key in rows[0]]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        for line in (heads, *cells):
            click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
