"""The demo as a person sees it in the terminal: the story step by step, then the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from whiteroom.demo.data import DemoData
from whiteroom.demo.findings import Size
from whiteroom.demo.flow import Told

_BAR = 10


class Terminal:
    """Tells the story on a console; live where it is a terminal, line by line where it is not."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    def note(self, line: str) -> None:
        """A line that explains, dimmed."""
        self.console.print(Text(f"  {line}", "dim"))

    @contextmanager
    def step(self, sentence: str) -> Iterator[Callable[[str], None]]:
        """A step of the story: spins while it lasts, stays as a line with its time when it is done."""
        started = time.monotonic()
        with self.console.status(Text(f"{sentence} …")) as status:
            try:
                yield lambda detail: status.update(Text.assemble(f"{sentence} … ", (detail, "dim")))
            except BaseException:
                self.console.print(Text.assemble(("✗ ", "red"), sentence))
                raise
        took = (f" {time.monotonic() - started:.1f} s", "dim")
        self.console.print(Text.assemble(("✓ ", "green"), sentence, took))

    def report(
        self, data: DemoData, told: Told, sizes: Sequence[Size], files: Mapping[str, Path], hints: Sequence[str]
    ) -> None:
        """The findings, where the files lie, and what to try next."""
        self.console.print()
        self.console.print(Panel(Group(*_findings(data, told, sizes)), title="The audiences", padding=(1, 2)))
        self.console.print("\n[bold]The files[/]")
        for what, path in files.items():
            self.console.print(Text(f"  {what + ':':<18} {path}"), soft_wrap=True)
        self.console.print("\n[bold]Try next[/]")
        for hint in hints:
            self.console.print(Text(f"  {hint}"), soft_wrap=True)
        self.console.print()


def _findings(data: DemoData, told: Told, sizes: Sequence[Size]) -> Iterator[Table | Text]:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for head in ("size", "users"):
        table.add_column(head, justify="right")
    table.add_column("relevance", no_wrap=True)
    if data.truth:
        table.add_column("truth found", no_wrap=True)
        table.add_column("by chance", justify="right")
        table.add_column("lift", justify="right")
    for size in sizes:
        row: list[str | Text] = [f"{size.percent} %", f"{size.users:,}", _relevance(size.relevance)]
        if size.recall is not None:
            row += [_bar(size.recall), f"{size.by_chance:.1%}", f"{size.lift:.1f}x"]
        table.add_row(*row)
    yield table
    yield Text()
    yield Text("Relevance: +1 the last users of the size are as the seed, 0 as anybody, -1 unlike it.", "dim")
    if data.truth:
        yield Text(f"Truth: {data.truth_is}, {len(data.truth):,} users that the service was never told of.", "dim")
    if told.recall is not None:
        largest = sizes[-1]
        known = f"; measured against the truth: {largest.recall:.0%}" if largest.recall is not None else ""
        yield Text()
        yield Text(
            f"The service's own recall metric: {told.recall:.0%} of hidden seeds found in the top "
            f"{largest.percent} %{known}; chance: {largest.percent} %."
        )
    yield Text()
    yield Text("Refused to the advertiser: " + "; ".join(told.refusals) + ".")


def _bar(share: float) -> Text:
    return Text.assemble((_blocks(share), "green"), f" {share:.0%}")


def _relevance(score: float | None) -> Text:
    if score is None:
        return Text("-")
    return Text.assemble((_blocks(abs(score)), "cyan" if score >= 0 else "red"), f" {score:+.2f}")


def _blocks(share: float) -> str:
    """A bar of `_BAR` characters, in eighths."""
    eighths = round(min(max(share, 0.0), 1.0) * _BAR * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(_BAR, "·")
