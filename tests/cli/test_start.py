"""The command line starts at once, and names everything that it has."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.cli.conftest import ENVIRONMENT, CommandLine

COMMANDS = ["serve", "worker", "audit", "account", "audience-model", "bucket", "table", "settings", "doctor", "demo"]


def test_help_names_every_command_for_people_and_no_other(cli: CommandLine) -> None:
    shown = cli("--help", data_dir=False).stdout
    listed = [line.split()[0] for line in shown.split("Commands:")[1].splitlines() if line.strip()]
    assert sorted(listed) == sorted(COMMANDS)
    for command in COMMANDS:
        assert cli(command, "--help", data_dir=False).returncode == 0


def test_help_takes_no_time() -> None:
    def seconds() -> float:
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "whiteroom", "--help"], env=ENVIRONMENT, stdout=-3, check=True)
        return time.monotonic() - started

    assert min(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize(
    ("variable", "told"),
    [("WHITEROOM_PORT", "WHITEROOM_PORT: 'x' is not a whole number"), ("WHITEROOM_X", "there is no setting 'x'")],
)
def test_a_bad_setting_is_told_by_every_command(cli: CommandLine, variable: str, told: str) -> None:
    assert told in cli.refused("account", "list", **{variable: "x"})


def test_the_settings_in_force_are_shown_without_secrets(cli: CommandLine) -> None:
    shown = cli("settings", WHITEROOM_WORKERS="5", WHITEROOM_S3_SECRET_ACCESS_KEY="s3cret").stdout
    assert "workers = 5\n" in shown
    assert f"data_dir = {cli.data_dir}\n" in shown
    assert "s3_secret_access_key = (set)\n" in shown
    assert "s3cret" not in shown
