"""A real `whiteroom serve` for the tests, used as users use it: the command line, boto3 and S3 on sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ENDINGS = ("ACTIVE", "CREATE_FAILED", "DELETE_FAILED")


@dataclass(frozen=True)
class Account:
    """One party: its id, its key, and clients that speak to the server under test."""

    id: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    api_url: str
    s3_url: str | None
    region: str = "us-east-1"

    @property
    def role(self) -> str:
        return f"arn:aws:iam::{self.id}:role/whiteroom"

    @cached_property
    def ml(self) -> Any:
        return self.client("cleanroomsml")

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    def client(self, service: str, **options: Any) -> Any:
        config = Config(retries={"total_max_attempts": 1}, read_timeout=60, s3={"addressing_style": "path"})
        return boto3.client(
            service,
            endpoint_url=self.s3_url if service == "s3" else self.api_url,
            region_name=options.pop("region_name", self.region),
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=config,
            **options,
        )


class Server:
    """A server process over one data directory; it can be killed and started again."""

    def __init__(self, data_dir: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.options = options
        # Without noise what a test sees is exact; tests of the noise set it.
        exact = {"WHITEROOM_LIMITS_METRICS_EPSILON": "0"}
        self.environment = {**os.environ, "WHITEROOM_CONFIG": os.devnull, **exact, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.urls: dict[str, Any] = {}

    def start(self) -> None:
        log = (self.data_dir.parent / f"{self.data_dir.name}.log").open("ab")
        command = ["serve", "--data-dir", str(self.data_dir), "--port", "0", "--s3-port", "0", *self.options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "whiteroom", *command], stdout=log, stderr=log, env=self.environment
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            if self._ready():
                return
            time.sleep(0.02)
        raise RuntimeError(f"the server is not ready after 30 s:\n{self.log()}")

    def _ready(self) -> bool:
        try:
            self.urls = json.loads((self.data_dir / "server.json").read_text())
            if self.urls["pid"] != self.process.pid:  # type: ignore[union-attr]
                return False
            with urllib.request.urlopen(self.urls["apiUrl"] + "/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError, KeyError):
            return False

    def log(self) -> str:
        path = self.data_dir.parent / f"{self.data_dir.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(timeout=20)
        self.process = None
        return code

    def cli(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "whiteroom", *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def account(self, account_id: str, name: str, *buckets: str) -> Account:
        key = json.loads(self.cli("account", "create", account_id, "--name", name, "--json"))
        for bucket in buckets:
            self.cli("bucket", "create", bucket, "--account", account_id)
        return Account(
            key["accountId"],
            key["accessKeyId"],
            key["secretAccessKey"],
            self.urls["apiUrl"],
            self.urls.get("s3Url"),
        )


@contextmanager
def running(data_dir: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    server = Server(data_dir, *options, environment=environment)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.stop()


def wait(get: Any, seconds: float = 120, **arguments: str) -> dict[str, Any]:
    """Poll a Get until the resource has come to an end; its document."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        document: dict[str, Any] = get(**arguments)
        if document["status"] in ENDINGS:
            return document
        time.sleep(0.05)
    raise AssertionError(f"still {document['status']} after {seconds} s: {arguments}")
