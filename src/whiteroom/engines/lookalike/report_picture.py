"""A report as a picture: recall by audience size, and the items that most users have. SVG, needs nothing else."""

from __future__ import annotations

from html import escape

from whiteroom.engines.lookalike.report import TOPS, Report

_WIDE, _HIGH, _LEFT, _TOP, _GAP = 340, 240, 60, 56, 150
_BARS = 10
_LONGEST_ID = 18
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2937}.small{font-size:11px;fill:#6b7280}"
    ".grid{stroke:#e5e7eb}.chance{stroke:#9ca3af;stroke-dasharray:5 5}.line{fill:none;stroke:#2563eb;stroke-width:3}"
    ".band{fill:#2563eb;opacity:.15}.probe{fill:#2563eb;opacity:.35}.bar{fill:#2563eb}"
)


def svg(report: Report) -> str:
    """The picture as a file's text."""
    width, height = 2 * _LEFT + 2 * _WIDE + _GAP, _TOP + _HIGH + 56
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="What an audience model learned"><style>{_STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        f"{_text(_LEFT, 26, 'Recall by audience size')}{_curve(report)}"
        f"{_text(_LEFT + _WIDE + 40, 26, 'Items that most users have')}{_bars(report)}</svg>\n"
    )


def _curve(report: Report) -> str:
    steps = [_LEFT + _WIDE * n / (len(TOPS) - 1) for n in range(len(TOPS))]
    parts = []
    for percent in (0, 25, 50, 75, 100):
        y = _y(percent / 100)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _WIDE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{percent} %", "small", "end"))
    parts += [_text(x, _TOP + _HIGH + 20, f"{top:.0%}", "small", "middle") for x, top in zip(steps, TOPS, strict=True)]
    parts.append(_text(_LEFT + _WIDE / 2, _TOP + _HIGH + 40, "audience, share of all users", "small", "middle"))
    if not report.probes:
        return "".join(parts) + _text(_LEFT + _WIDE / 2, _y(0.5), "no item fit for a probe", "small", "middle")
    low, high = report.band
    if len(report.probes) > 1:
        around = [*zip(steps, high, strict=True), *reversed(list(zip(steps, low, strict=True)))]
        parts.append(f'<polygon class="band" points="{_points(around)}"/>')
    for probe in report.probes:
        parts += [
            f'<circle class="probe" cx="{x:.1f}" cy="{_y(found):.1f}" r="3"/>'
            for x, found in zip(steps, probe.found, strict=True)
        ]
    parts.append(f'<polyline class="chance" fill="none" points="{_points(list(zip(steps, TOPS, strict=True)))}"/>')
    parts.append(_text(steps[-1] - 6, _y(TOPS[-1]) - 8, "chance", "small", "end"))
    parts.append(f'<polyline class="line" points="{_points(list(zip(steps, report.curve, strict=True)))}"/>')
    about = f"mean of {len(report.probes)} probe audiences" + (", 95 % interval" if len(report.probes) > 1 else "")
    return "".join(parts) + _text(_LEFT, 44, about, "small")


def _bars(report: Report) -> str:
    left = _LEFT + _WIDE + _GAP
    most = report.popular[:_BARS]
    step = _HIGH / _BARS
    parts = [_text(_LEFT + _WIDE + 40, 44, f"of {report.n_users:,} users", "small")]
    for n, (item, users) in enumerate(most):
        y, wide = _TOP + n * step, (_WIDE - 40) * users / most[0][1]
        name = item if len(item) <= _LONGEST_ID else item[: _LONGEST_ID - 1] + "…"
        parts.append(_text(left - 8, y + step / 2 + 4, name, "small", "end"))
        parts.append(f'<rect class="bar" x="{left}" y="{y + 3:.1f}" width="{wide:.1f}" height="{step - 6:.1f}"/>')
        parts.append(_text(left + wide + 6, y + step / 2 + 4, f"{users:,}", "small"))
    return "".join(parts)


def _y(share: float) -> float:
    return _TOP + _HIGH * (1 - share)


def _points(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{_y(share):.1f}" for x, share in places)


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    # An id may hold characters that XML does not allow at all, such as NUL.
    shown = escape("".join(c if c.isprintable() else "�" for c in words))
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}</text>'
