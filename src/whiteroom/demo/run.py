"""The demo from the command line to the report: data, a server, the flow, the findings."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

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
            terminal.say(f"  [dim]{line}[/]")
        settings = server.settings(data_dir)
        with ExitStack() as while_serving:
            with terminal.step("A server starts on free ports: API, worker and S3"):
                running = while_serving.enter_context(server.serving(settings))
            told = flow.walk(settings, running, data, time.strftime("%Y%m%d-%H%M%S"), terminal.step)
        sizes = findings.measure(data, told)
        files = _save(options.output, data, told, sizes)
        if kept:
            files.append(data_dir.absolute())
        terminal.report(data, told, sizes, files, _hints(options, data_dir if kept else None))
        terminal.say(f"\nThe whole took {time.monotonic() - started:.0f} seconds.")


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
    try:
        yield directory, options.keep
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


def _save(output: Path, data: DemoData, told: flow.Told, sizes: Sequence[findings.Size]) -> list[Path]:
    """Write the picture and each audience, best first; returns the files."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        report = output / "report.html"
        report.write_text(picture.page(data, told, sizes, findings.curve(data, told)), "utf-8")
        files = [report.absolute()]
        for audience in told.audiences:
            path = output / f"audience-{audience.percent:02d}-percent.jsonl"
            path.write_text("".join(json.dumps({"user_id": user}) + "\n" for user in audience.users), "utf-8")
            files.append(path.absolute())
    except OSError as error:
        raise Problem(f"Cannot write the report to {output}: {error.strerror or error}.") from error
    return files


def _hints(options: Options, kept: Path | None) -> list[str]:
    hints = []
    if options.interactions is None:
        hints.append("your own data:    whiteroom demo --interactions FILE --seed FILE")
    if kept is None:
        hints.append("keep the server:  whiteroom demo --keep")
    else:
        hints.append(f"serve what is left of this:  whiteroom serve --data-dir {kept}")
    hints += [
        "your own server:  whiteroom serve, then whiteroom account create 111122223333 --name publisher",
        "from your code:   README.md, five minutes with boto3",
    ]
    return hints
