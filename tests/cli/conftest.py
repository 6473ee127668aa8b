"""The command line as a person has it: a process, its output, its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("WHITEROOM_")}
ENVIRONMENT["WHITEROOM_CONFIG"] = os.devnull


class CommandLine:
    """Runs commands on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def __call__(self, *arguments: str, data_dir: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        options = ["--data-dir", str(self.data_dir)] if data_dir else []
        return subprocess.run(
            [sys.executable, "-m", "whiteroom", *arguments, *options],
            capture_output=True,
            text=True,
            env=ENVIRONMENT | environment,
            timeout=120,
            check=False,
        )

    def done(self, *arguments: str) -> str:
        """The output of a command that must succeed."""
        result = self(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, *arguments: str, **environment: str) -> str:
        """The words of a command that must fail: said in a sentence, not in a trace."""
        result = self(*arguments, **environment)
        assert result.returncode in (1, 2), result.stdout
        assert "Error: " in result.stderr
        assert "Traceback" not in result.stderr
        return result.stderr


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "data")
