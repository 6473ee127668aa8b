"""Pictures of what the benchmarks wrote with --json: `python -m benchmarks.pictures REPORT.json DIR`.

Colours are those of Okabe and Ito (2008), told apart by all common kinds of colour blindness; every curve and point
carries its name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox

OURS = "whiteroom"
COLOURS = {
    OURS: "#D55E00",
    "R4": "#0072B2",
    "R2": "#56B4E9",
    "R1": "#009E73",
    "ALS-64 + ridge": "#CC79A7",
    "ALS-64 + centroid cosine": "#000000",
    "naive Bayes": "#E69F00",
}
"""By how a method's name begins; all others are grey."""
CURVES = (*COLOURS, "TF-IDF centroid", "EASE")
OFF_THE_SCALE = ("random", "activity")
"""These know nothing of the seed; drawn, they would press all others together."""
GREY = "#777777"
LEAST = {"train_cpu_seconds": 0.05, "job_cpu_ms": 0.1}
"""What costs less stands at the left edge of its logarithmic axis."""

plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "whiteroom"}


def draw_lookalike(report: dict[str, Any], directory: Path) -> None:
    """Recall against seed size, and quality against what training and one seed cost."""
    directory.mkdir(parents=True, exist_ok=True)
    if len(report["methods"][OURS]["sizes"]) > 1:
        recall_by_size(report, directory / "recall-by-seed-size.png")
    quality_by_cost(report, directory / "quality-by-cost.png")


def recall_by_size(report: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    methods = {name: m for name, m in report["methods"].items() if name.startswith(CURVES)}
    sizes = [int(size) for size in methods[OURS]["sizes"]]
    for name, m in methods.items():
        recall = [measures["recall"] for measures in m["sizes"].values()]
        axes.plot(
            sizes, recall, "o-", color=colour(name), lw=2.4 if name == OURS else 1.3, ms=4, zorder=2 + (name == OURS)
        )
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("users in the seed (larger seeds come from larger audiences)")
    axes.set_ylabel("recall@20 %, mean over blocks (random: 0.2)")
    axes.grid(axis="y", color="#DDDDDD", lw=0.6)
    ends = {name: list(m["sizes"].values())[-1]["recall"] for name, m in methods.items()}
    low, high = axes.get_ylim()
    axes.set_xlim(sizes[0] * 0.9, sizes[-1] * 1.05)
    for name, height in apart(ends, 0.042 * (high - low)).items():
        axes.annotate(
            name,
            (sizes[-1], ends[name]),
            (sizes[-1] * 1.25, height),
            color=colour(name),
            va="center",
            weight="bold" if name == OURS else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour(name), "lw": 0.5, "relpos": (0, 0.5)},
        )
    save(figure, path)


def quality_by_cost(report: dict[str, Any], path: Path) -> None:
    figure, both = plt.subplots(1, 2, figsize=(12, 5.6), sharey=True)
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.09, top=0.98, wspace=0.04)
    labels = ("CPU seconds of training, all blocks", "CPU milliseconds for one seed")
    methods = {name: m for name, m in report["methods"].items() if name not in OFF_THE_SCALE}
    for axes, (cost, least), label in zip(both, LEAST.items(), labels, strict=True):
        points = {name: (max(m[cost], least), m["mean"]) for name, m in methods.items()}
        for name, (x, y) in points.items():
            low, high = methods[name]["interval"]
            axes.errorbar(x, y, [[y - low], [high - y]], fmt="o", color=colour(name), ecolor=(colour(name), 0.3), ms=5)
        axes.set_xscale("log")
        axes.set_xlim(least * 0.8, max(x for x, _ in points.values()) * 12)
        axes.set_xlabel(f"{label} ({least} or less at the left edge)")
        axes.grid(color="#EEEEEE", lw=0.6)
        label_points(axes, points)
    both[0].set_ylabel("recall@20 %, mean over blocks, 95 % interval over audiences")
    save(figure, path)


def draw_scale(report: dict[str, Any], directory: Path) -> None:
    """CPU seconds of training against interactions, with the fitted power."""
    directory.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
    sizes, seconds = np.array(report["growth"]["interactions"]), np.array(report["growth"]["cpu_seconds"])
    slope = report["growth"]["exponent"]
    level = np.exp(np.mean(np.log(seconds) - slope * np.log(sizes)))
    axes.loglog(sizes, level * sizes**slope, "--", color=GREY, lw=1)
    axes.loglog(sizes, seconds, "o", color=COLOURS[OURS])
    axes.annotate(
        f"seconds ~ interactions$^{{{slope:.2f}}}$", (sizes[1], seconds[1]), (8, -14), textcoords="offset points"
    )
    axes.set_xticks(sizes, [f"{size / 1e6:.3g} M" for size in sizes])
    axes.set_yticks(seconds, [f"{one:.3g}" for one in seconds])
    axes.minorticks_off()
    axes.set_xlabel("interactions")
    axes.set_ylabel("CPU seconds from Parquet to model")
    axes.grid(color="#EEEEEE", lw=0.6)
    save(figure, directory / "training-by-interactions.png")


def colour(name: str) -> str:
    return next((value for start, value in COLOURS.items() if name.startswith(start)), GREY)


def apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """The heights moved as little as a few rounds need until neighbours are a gap apart."""
    names = sorted(heights, key=lambda name: heights[name])
    moved = {name: heights[name] for name in names}
    for _ in range(200):
        for lower, upper in pairwise(names):
            missing = gap - (moved[upper] - moved[lower])
            if missing > 0:
                moved[lower] -= missing / 2
                moved[upper] += missing / 2
    return moved


def label_points(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Each point's name beside it, at the nearest place that covers no other name or point."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    dots = axes.transData.transform(list(points.values()))
    boxes = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    places = [(dx, dy) for reach in range(0, 120, 5) for dx in (7, -7) for dy in (reach, -reach)]
    for name, point in sorted(points.items(), key=lambda item: (item[0] != OURS, -item[1][1])):
        text = axes.annotate(
            name,
            point,
            (0, 0),
            textcoords="offset points",
            color=colour(name),
            va="center",
            weight="bold" if name == OURS else "normal",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": colour(name), "lw": 0.4},
        )
        for place in places:
            text.set_position(place)
            text.set_ha("left" if place[0] > 0 else "right")
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # without the arrow
            if axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and not box.count_overlaps(boxes):
                break
        boxes.append(box)


def save(figure: Any, path: Path) -> None:
    # No date and version in the file: the same figures give the same bytes.
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    report = json.loads(Path(arguments[0]).read_text())
    (draw_lookalike if "methods" in report else draw_scale)(report, Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
