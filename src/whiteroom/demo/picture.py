"""The findings as one HTML file with an SVG in it: opens anywhere, loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from whiteroom.demo.data import DemoData
from whiteroom.demo.findings import Size
from whiteroom.demo.flow import Told

_LEFT, _TOP, _WIDE, _HIGH = 60, 20, 560, 300

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Whiteroom: a lookalike audience</title>
<style>
  :root {{ color-scheme: light dark; --line: #2563eb; --chance: #9ca3af; --ink: #1f2937; --paper: #ffffff; }}
  @media (prefers-color-scheme: dark) {{ :root {{ --line: #60a5fa; --ink: #e5e7eb; --paper: #111827; }} }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem;
         color: var(--ink); background: var(--paper); }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #8884; }}
  svg {{ width: 100%; height: auto; }}
  svg text {{ fill: var(--ink); font-size: 13px; }}
</style>
<h1>A lookalike audience</h1>
<ul>{about}</ul>
{chart}
<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>
<p>{recall}</p>
<p>The advertiser never saw a user, the publisher never saw the seed. Refused to the advertiser: {refusals}.</p>
</html>
"""


def page(data: DemoData, told: Told, sizes: Sequence[Size], curve: Sequence[tuple[float, float]]) -> str:
    """The whole file as text."""
    heads = ["size", "users", "relevance"] + (["truth found", "by chance", "lift"] if data.truth else [])
    recall = "" if told.recall is None else f"The service's own recall metric: {told.recall:.0%}."
    return _PAGE.format(
        about="".join(f"<li>{escape(line)}</li>" for line in data.about),
        chart=_found(curve, data.truth_is) if curve else _relevance(sizes),
        heads="".join(f"<th>{head}</th>" for head in heads),
        rows="".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(size))}</tr>" for size in sizes),
        recall=recall,
        refusals=escape("; ".join(told.refusals)),
    )


def _cells(size: Size) -> list[str]:
    cells = [f"{size.percent} %", f"{size.users:,}"]
    cells.append("-" if size.relevance is None else f"{size.relevance:+.2f}")
    if size.recall is not None:
        cells += [f"{size.recall:.0%}", f"{size.by_chance:.1%}", f"{size.lift:.1f}x"]
    return cells


def _found(curve: Sequence[tuple[float, float]], truth_is: str) -> str:
    """The share of the truth found over the share of users taken, above the line of chance."""
    widest = curve[-1][0]
    points = " ".join(f"{_x(taken / widest):.1f},{_y(found):.1f}" for taken, found in curve)
    chance = f'<path d="M{_x(0)} {_y(0)} L{_x(1)} {_y(widest):.1f}" stroke="var(--chance)" stroke-dasharray="5 5"/>'
    ticks = [(_x(share), f"{share * widest:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)]
    return _frame(
        f"{chance}"
        f'<text x="{_x(1) - 8}" y="{_y(widest) - 8:.1f}" text-anchor="end">chance</text>'
        f'<polyline points="{points}" fill="none" stroke="var(--line)" stroke-width="3"/>',
        ticks,
        f"share of {truth_is} found, over the share of all users in the audience",
    )


def _relevance(sizes: Sequence[Size]) -> str:
    """A bar for each size's relevance, as far as it is positive."""
    step = _WIDE / len(sizes)
    bars = "".join(
        f'<rect x="{_LEFT + n * step + step / 4:.1f}" y="{_y(max(size.relevance or 0, 0)):.1f}" width="{step / 2:.1f}" '
        f'height="{_y(0) - _y(max(size.relevance or 0, 0)):.1f}" fill="var(--line)"/>'
        for n, size in enumerate(sizes)
    )
    ticks = [(_LEFT + (n + 0.5) * step, f"{size.percent} %") for n, size in enumerate(sizes)]
    return _frame(bars, ticks, "relevance by audience size")


def _frame(inside: str, ticks: Sequence[tuple[float, str]], title: str) -> str:
    grid = "".join(
        f'<path d="M{_x(0)} {_y(level):.1f} H{_x(1)}" stroke="#8884"/>'
        f'<text x="{_LEFT - 8}" y="{_y(level) + 4:.1f}" text-anchor="end">{level:.0%}</text>'
        for level in (0, 0.25, 0.5, 0.75, 1)
    )
    below = "".join(f'<text x="{x:.1f}" y="{_y(0) + 20}" text-anchor="middle">{label}</text>' for x, label in ticks)
    caption = f'<text x="{_LEFT}" y="{_y(0) + 44}">{escape(title)}</text>'
    size = f"0 0 {_LEFT + _WIDE + 30} {_TOP + _HIGH + 60}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(title)}">{grid}{inside}{below}{caption}</svg>'


def _x(share: float) -> float:
    return _LEFT + share * _WIDE


def _y(share: float) -> float:
    return _TOP + (1 - share) * _HIGH
