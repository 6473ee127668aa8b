"""A server's life: it comes up whole, holds its place, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError
from sqlalchemy import text

from tests.cli.conftest import CommandLine
from tests.server import Server, running
from whiteroom import datadir
from whiteroom.store.database import Database


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with its S3 in use: that part starts with the first connection."""
    with running(tmp_path / "data") as server:
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(server.urls["s3Url"], timeout=30)
        yield server


def family(server: Server) -> list[psutil.Process]:
    """The server's process and all below it."""
    assert server.process is not None
    top = psutil.Process(server.process.pid)
    return [top, *top.children(recursive=True)]


def part_of(server: Server, words: str) -> psutil.Process | None:
    """The process below the server's whose command line holds the words; None while it is between two lives."""
    for process in family(server)[1:]:
        with suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                return process
    return None


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def eventually(condition: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"nothing came of it in {seconds} s"
        time.sleep(0.05)
    return value


def health(server: Server) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(server.urls["apiUrl"] + "/healthz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_ready_server_says_so_of_every_part(server: Server) -> None:
    parts = {"api": "ready", "database": "ready", "worker": "ready", "s3": "ready"}
    assert health(server) == (200, {"status": "ready", "components": parts})


def test_what_a_server_keeps_is_readable_by_its_user_only(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    with running(tmp_path / "data", "--workers", "0", "--s3-port", "-1"):
        kept = [path for path in (tmp_path / "data").rglob("*") if not path.is_symlink()]
    assert {"whiteroom.db", "server.json"} <= {path.name for path in kept}
    assert [path for path in kept if path.exists() and path.stat().st_mode & 0o077] == []


def test_parts_that_are_switched_off_are_off_and_do_not_hold_up_the_rest(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--workers", "0", "--s3-port", "-1") as server:
        assert len(family(server)) == 1
        assert server.urls["s3Url"] is None
        status, document = health(server)
    assert status == 200
    assert document["components"] == {"api": "ready", "database": "ready", "worker": "off", "s3": "off"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_ends_with_code_0_and_takes_everything_with_it(server: Server, how: signal.Signals) -> None:
    processes = family(server)
    assert len(processes) >= 3
    started = time.monotonic()
    assert server.stop(how) == 0
    assert time.monotonic() - started < 15
    assert alive(processes) == []
    assert not (server.data_dir / "server.json").exists()


def test_a_stop_during_the_start_ends_as_cleanly(tmp_path: Path, cli: CommandLine) -> None:
    server = Server(tmp_path / "data")
    command = ["-m", "whiteroom", "serve", "--data-dir", str(server.data_dir), "--port", "0", "--s3-port", "0"]
    process = subprocess.Popen([sys.executable, *command], env=server.environment, stderr=subprocess.PIPE)
    eventually(lambda: (server.data_dir / "server.lock").exists())
    process.terminate()
    _, words = process.communicate(timeout=20)
    assert process.returncode == 0, words
    assert b"Traceback" not in words


@pytest.mark.chaos
def test_a_killed_server_leaves_no_orphans_and_its_directory_free(server: Server) -> None:
    processes = family(server)
    server.stop(signal.SIGKILL)
    eventually(lambda: not alive(processes))
    assert (server.data_dir / "server.json").exists()
    assert datadir.running(server.data_dir) is None, "what the killed server said of itself is believed no longer"
    server.start()
    assert health(server)[0] == 200


@pytest.mark.chaos
@pytest.mark.parametrize("part", ["whiteroom worker", "rclone serve s3"])
def test_a_part_that_dies_is_started_again(server: Server, part: str) -> None:
    first = eventually(lambda: part_of(server, part))
    first.kill()
    eventually(lambda: (second := part_of(server, part)) and second.pid != first.pid)
    eventually(lambda: health(server)[0] == 200)


@pytest.mark.chaos
def test_a_server_whose_worker_cannot_stay_up_is_not_ready(server: Server) -> None:
    def unready() -> bool:
        eventually(lambda: part_of(server, "whiteroom worker")).kill()
        status, document = health(server)
        return (status, document["components"]["worker"]) == (503, "not ready")

    assert [eventually(unready) for _ in range(3)] == [True] * 3
    eventually(lambda: health(server)[0] == 200)


def test_a_second_server_on_the_directory_is_refused_by_the_pid_of_the_first(server: Server, cli: CommandLine) -> None:
    assert server.process is not None
    words = cli.refused("serve", "--port", "0", "--s3-port", "0")
    assert f"A server with pid {server.process.pid} already serves {server.data_dir}" in words
    assert health(server)[0] == 200


@pytest.mark.parametrize("option", ["--port", "--s3-port"])
def test_a_port_in_use_is_named_and_nothing_stays_behind(cli: CommandLine, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"--port": "0", "--s3-port": "0"} | {option: port}
        words = cli.refused("serve", *(word for pair in ports.items() for word in pair))
    assert port in words
    assert "in use" in words
    assert not (cli.data_dir / "server.json").exists()


def test_a_host_that_is_not_ours_is_named(cli: CommandLine) -> None:
    words = cli.refused("serve", "--port", "0", "--s3-port", "0", "--host", "192.0.2.1")
    assert "cannot listen on 192.0.2.1" in words


def test_a_database_that_does_not_answer_is_named_without_its_password(cli: CommandLine) -> None:
    url = "postgresql+psycopg://joe:s3cret@127.0.0.1:1/rooms"
    words = cli.refused("serve", "--port", "0", "--s3-port", "0", "--database-url", url)
    assert "postgresql+psycopg://joe:***@127.0.0.1:1/rooms cannot be reached" in words
    assert "s3cret" not in words


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("rooms", "The database URL cannot be read"),
        ("nosuch://joe:s3cret@host/rooms", "cannot be used"),
        ("sqlite://", "in-memory"),
        ("sqlite:////no/such/directory/rooms.db", "cannot be reached"),
    ],
)
def test_a_database_url_that_cannot_work_is_refused(cli: CommandLine, url: str, told: str) -> None:
    words = cli.refused("serve", "--port", "0", "--s3-port", "0", "--database-url", url)
    assert told in words
    assert "s3cret" not in words


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = CommandLine(tmp_path / "file" / "data").refused("serve", "--port", "0", "--s3-port", "0")
    assert f"Cannot make the data directory {tmp_path / 'file' / 'data'}" in words


def test_a_server_key_that_sealed_nothing_here_is_refused_before_anybody_is_locked_out(cli: CommandLine) -> None:
    cli.done("account", "create", "111122223333", "--name", "publisher")
    (cli.data_dir / "keys" / "server.key").unlink()
    words = cli.refused("serve", "--port", "0", "--s3-port", "0")
    assert "The server key is not the one that sealed this database's secrets" in words
    assert "base64" in cli.refused("serve", "--port", "0", "--s3-port", "0", WHITEROOM_SERVER_KEY="not a key")


def test_a_setting_that_cannot_be_used_is_named(cli: CommandLine) -> None:
    assert "WHITEROOM_LEASE_SECONDS" in cli.refused("serve", WHITEROOM_LEASE_SECONDS="soon")


def test_a_key_made_while_the_server_runs_works_at_once_and_one_removed_stops(server: Server) -> None:
    publisher = server.account("111122223333", "publisher")
    assert publisher.ml.list_training_datasets()["trainingDatasets"] == []
    database = Database(f"sqlite:///{server.data_dir / 'whiteroom.db'}")
    with database.write() as tx:
        tx.execute(text("DELETE FROM access_key WHERE id = :id"), {"id": publisher.access_key_id})
    database.close()

    def refused() -> bool:
        try:
            publisher.ml.list_training_datasets()
        except ClientError as error:
            return error.response["Error"]["Code"] == "UnrecognizedClientException"
        return False

    eventually(refused, seconds=10)


def test_a_start_costs_the_api_little_processor_time(server: Server) -> None:
    # Processor time, because the wall clock tells how busy the machine is; 0.5 s on an idle one.
    times = family(server)[0].cpu_times()
    assert times.user + times.system < 1.5
