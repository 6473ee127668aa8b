"""The demo from the command line to the report: data, a server, the flow, the findings."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from whiteroom.config import Settings
from whiteroom.demo import findings, flow, own_files, picture, population, server
from whiteroom.demo.data import DemoData
from whiteroom.demo.terminal import Terminal
from whiteroom.problems import Problem


@dataclass(frozen=True)
class Options:
    """What the command line was given.

    output : directory of the report and of the audiences.
    data_dir : the server's data; by default a temporary directory that is removed unless `keep`.
    """

    interactions: Path | None
    seed: Path | None
    user_column: str | None
    item_column: str | None
    timestamp_column: str | None
    output: Path
    data_dir: Path | None
    keep: bool


def demo(options: Options) -> None:
    """Run it. Raises Problem for what the user can act on."""
    terminal = Terminal()
    started = time.monotonic()
    if (options.interactions is None) != (options.seed is None):
        raise Problem("Give both --interactions and --seed, or neither for a made-up population.")
    with _data_dir(options) as (data_dir, kept):
        with terminal.step(_data_sentence(options)):
            data = _data(options)
        for line in data.about:
            terminal.note(line)
        told = _walk(server.settings(data_dir), data, terminal)
        sizes = findings.measure(data, told)
        files = _save(options.output, data, told, sizes)
        if kept:
            files["the server's data"] = data_dir.absolute()
        terminal.report(data, told, sizes, files, _hints(options, data_dir if kept else None))
        terminal.note(f"The whole took {time.monotonic() - started:.0f} seconds.")


def _walk(settings: Settings, data: DemoData, terminal: Terminal) -> flow.Told:
    """The flow against a server that lives as long. Raises Problem for what the server refused."""
    from botocore.exceptions import BotoCoreError, ClientError

    with ExitStack() as while_serving:
        with terminal.step("A server starts on free ports: API, worker and S3"):
            running = while_serving.enter_context(server.serving(settings))
        try:
            return flow.walk(settings, running, data, time.strftime("%Y%m%d-%H%M%S"), terminal.step)
        except (ClientError, BotoCoreError) as error:
            raise Problem(f"The server at {running.api_url} refused: {error}") from error


def _data_sentence(options: Options) -> str:
    return f"Reading {options.interactions}" if options.interactions else "Making up a population with a known truth"


def _data(options: Options) -> DemoData:
    if options.interactions is None or options.seed is None:
        return population.generate()
    columns = own_files.Columns(options.user_column, options.item_column, options.timestamp_column)
    return own_files.read(options.interactions, options.seed, columns)


@contextmanager
def _data_dir(options: Options) -> Iterator[tuple[Path, bool]]:
    """The server's data directory, and whether it stays."""
    if options.data_dir is not None:
        yield options.data_dir, True
        return
    directory = Path(tempfile.mkdtemp(prefix="whiteroom-demo-"))
    stays = options.keep
    try:
        yield directory, stays
    except Problem as error:
        if (directory / "server.log").exists():
            stays = True
            raise Problem(f"{error}\nThe server's data and logs are kept in {directory}.") from error
        raise
    finally:
        if not stays:
            shutil.rmtree(directory, ignore_errors=True)


def _save(output: Path, data: DemoData, told: flow.Told, sizes: Sequence[findings.Size]) -> dict[str, Path]:
    """Write the picture and each audience, best first; returns what lies where."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        report = output / "report.html"
        report.write_text(picture.page(data, told, sizes, findings.curve(data, told)), "utf-8")
        for audience in told.audiences:
            path = output / f"audience-{audience.percent:02d}-percent.jsonl"
            path.write_text("".join(json.dumps({"user_id": user}) + "\n" for user in audience.users), "utf-8")
    except OSError as error:
        raise Problem(f"Cannot write the report to {output}: {error.strerror or error}.") from error
    return {"the picture": report.absolute(), "the users": output.absolute() / "audience-*-percent.jsonl"}


def _hints(options: Options, kept: Path | None) -> list[str]:
    program = _program()
    hints = []
    if options.interactions is None:
        hints.append(f"your own data:     {program} demo --interactions FILE --seed FILE")
    if kept is None:
        hints.append(f"keep this server:  {program} demo --keep")
    else:
        hints.append(f"serve this again:  {program} serve --data-dir {kept}")
    hints.append(f"your own server:   {program} serve")
    hints.append("from your code:    README.md, five minutes with boto3")
    return hints


def _program() -> str:
    """How the person can start the program again, as it was started now."""
    invoked = Path(sys.argv[0])
    if invoked.name != "whiteroom":
        return f"{sys.executable} -m whiteroom"
    if shutil.which("whiteroom") == str(invoked):
        return "whiteroom"
    here = Path.cwd()
    return str(invoked.relative_to(here) if invoked.is_relative_to(here) else invoked)
