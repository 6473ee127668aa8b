"""LAL-Eval for the lookalike engine and its peers in one run: `python -m benchmarks.lookalike [--quick]`.

Prints recall@20 % on every block that the data directory (WHITEROOM_DATA) has, with its 95 % interval and that of
the paired difference to ours, the seconds of CPU that training takes and the milliseconds that one seed takes.

The intervals are bootstrapped over audiences: within each block audiences are drawn with replacement, each with
all of its repetitions and seed sizes, for all methods the same. They say how far other audiences of the same data
would move the figures, not how far other data would.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import laleval
from benchmarks.peers import METHODS, SLOW, Method, Ours

OURS = "whiteroom"
QUICK_JOBS = 24
"""Jobs of each block in a quick run."""
TIMED_JOBS = 8
"""Jobs of each block that are also done one at a time, with a clock."""
AT_ONCE = 64
"""Seeds that a method is given together where there is no clock."""
DRAWS = 4000


@dataclass
class Measured:
    """What one method did; quality by job, over all blocks in their order."""

    quality: list[laleval.Quality] = field(default_factory=list)
    train_seconds: float = 0.0
    """CPU seconds, summed over the blocks."""
    job_seconds: list[float] = field(default_factory=list)
    """CPU seconds of the timed jobs."""


@dataclass
class Ranks:
    """What `rank` does on the timed jobs: its CPU seconds, the recall it reports and the true one."""

    seconds: list[float] = field(default_factory=list)
    reported: list[float] = field(default_factory=list)
    true: list[float] = field(default_factory=list)


@dataclass
class Run:
    """One run: `methods` by name, and of every job its block, audience and seed size."""

    tag: str
    methods: dict[str, Measured]
    ranks: Ranks = field(default_factory=Ranks)
    block: list[str] = field(default_factory=list)
    audience: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lookalike", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    quick = f"seeds of 100 only, {QUICK_JOBS} jobs a block, without R3 and R4"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--sizes", action="store_true", help="seeds of 10 as well (never part of the mean)")
    tag = f"which audiences to draw: methods are chosen on {laleval.CHOSEN_ON}, reported on v2, validated on v3"
    parser.add_argument("--tag", default="v2", help=tag)
    parser.add_argument("--only", help=f"methods whose name contains this, and {OURS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw the figures into this directory")
    arguments = parser.parse_args(argv)
    names = [name for name in METHODS if not (arguments.quick and name in SLOW)]
    names = [name for name in names if not arguments.only or arguments.only in name or name == OURS]
    sizes = (100,) if arguments.quick else laleval.SEED_SIZES
    if arguments.sizes:
        sizes = (10, *sizes)
    run = Run(arguments.tag, {name: Measured() for name in names})
    # More threads of BLAS would wait for each other at full load, and that is no cost of a method.
    with threadpool_limits(1, "blas"):
        for block in laleval.blocks(arguments.tag, sizes=sizes):
            jobs = spread(block.jobs, QUICK_JOBS) if arguments.quick else block.jobs
            measure(run, block, jobs)
    if not run.block:
        print(f"Skipped: there is no data under {laleval.data_directory()}; set WHITEROOM_DATA.")
        return 0
    report = summary(run)
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.pictures:
        from benchmarks import pictures

        pictures.draw_lookalike(report, arguments.pictures)
    return 0


def spread(jobs: Sequence[laleval.Job], n: int) -> list[laleval.Job]:
    """About `n` of the jobs, evenly from first to last."""
    return [jobs[i] for i in np.unique(np.linspace(0, len(jobs) - 1, n).astype(int))]


def measure(run: Run, block: laleval.Block, jobs: Sequence[laleval.Job]) -> None:
    """Every method on one block."""
    users, items = block.X.shape
    say(f"{block.name}: {users:,} users x {items:,} items, {block.X.nnz:,} pairs, {len(jobs)} jobs")
    run.block += [block.name] * len(jobs)
    run.audience += [job.audience for job in jobs]
    run.size += [len(job.seed) for job in jobs]
    timed = spread(jobs, TIMED_JOBS)
    for name, measured in run.methods.items():
        method: Method = METHODS[name]()
        start = time.process_time()
        if isinstance(method, Ours):
            method.fit(block.X, block.times)
        else:
            method.fit(block.X)
        measured.train_seconds += time.process_time() - start
        for first in range(0, len(jobs), AT_ONCE):
            some = jobs[first : first + AT_ONCE]
            scores = method.scores([job.seed for job in some])
            measured.quality += [laleval.quality(scores[:, j], job) for j, job in enumerate(some)]
        for job in timed:
            start = time.process_time()
            method.scores([job.seed])
            measured.job_seconds.append(time.process_time() - start)
        if isinstance(method, Ours):
            compare_ranks(run.ranks, method, timed)
        say(f"  {name:30} {measured.train_seconds:7.1f} s {1000 * measured.job_seconds[-1]:7.1f} ms")


def compare_ranks(ranks: Ranks, ours: Ours, jobs: Sequence[laleval.Job]) -> None:
    for job in jobs:
        start = time.process_time()
        ranking = ours.model.rank(job.seed)
        ranks.seconds.append(time.process_time() - start)
        ranks.reported.append(ranking.recall)
        ranks.true.append(laleval.recall(ours.by_row(ranking.scores), job))


def bootstrap(values: np.ndarray, blocks: np.ndarray, audiences: np.ndarray) -> np.ndarray:
    """Means over blocks under resampled audiences.

    Parameters
    ----------
    values : jobs x columns. A block's mean is over its jobs, the result's over the blocks.
    blocks, audiences : the names of each job's.

    Returns
    -------
    DRAWS x columns.
    """
    rng = np.random.default_rng(0)
    means = []
    for block in np.unique(blocks):
        here = blocks == block
        _, cluster = np.unique(audiences[here], return_inverse=True)
        n = cluster.max() + 1
        sums = np.zeros((n, values.shape[1]))
        np.add.at(sums, cluster, values[here])
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
        means.append(drawn @ sums / (drawn @ np.bincount(cluster))[:, None])
    return np.asarray(np.mean(means, axis=0))


def summary(run: Run) -> dict[str, Any]:
    """All figures of a run, ready for JSON."""
    blocks, names = list(dict.fromkeys(run.block)), list(run.methods)
    counted = np.isin(run.size, laleval.SEED_SIZES)
    block, audience = np.array(run.block)[counted], np.array(run.audience)[counted]
    recalls = np.array([[q.recall for q in m.quality] for m in run.methods.values()]).T[counted]  # jobs x methods
    draws = bootstrap(recalls, block, audience)
    ours = names.index(OURS)
    means = np.array([recalls[block == b].mean(axis=0) for b in blocks])
    mean = means.mean(axis=0)
    methods = {}
    for m, (name, measured) in enumerate(run.methods.items()):
        methods[name] = {
            "blocks": dict(zip(blocks, means[:, m].tolist(), strict=True)),
            "mean": float(mean[m]),
            "interval": interval(draws[:, m]),
            "difference": float(mean[m] - mean[ours]),
            "difference_interval": interval(draws[:, m] - draws[:, ours]),
            "sizes": {str(s): by_size(run, measured, blocks, s) for s in sorted(set(run.size))},
            "train_cpu_seconds": measured.train_seconds,
            "job_cpu_ms": 1000 * float(np.mean(measured.job_seconds)),
        }
    error = np.array(run.ranks.reported) - np.array(run.ranks.true)
    rank = {
        "cpu_ms": 1000 * float(np.mean(run.ranks.seconds)),
        "recall_error_mean": float(error.mean()),
        "recall_error_rms": float(np.sqrt(np.square(error).mean())),
    }
    return {"tag": run.tag, "blocks": blocks, "cores": os.cpu_count(), "methods": methods, "rank": rank}


def interval(draws: np.ndarray) -> list[float]:
    return [float(bound) for bound in np.quantile(draws, (0.025, 0.975))]


def by_size(run: Run, measured: Measured, blocks: Sequence[str], size: int) -> dict[str, float]:
    """Each measure at one seed size, mean over the blocks that have such seeds."""
    of_block = []
    for block in blocks:
        here = [q for q, b, s in zip(measured.quality, run.block, run.size, strict=True) if (b, s) == (block, size)]
        if here:
            of_block.append(np.mean([(q.recall, q.auc, q.lift) for q in here], axis=0))
    return dict(zip(("recall", "auc", "lift"), np.mean(of_block, axis=0).tolist(), strict=True))


def show(report: dict[str, Any]) -> None:
    methods = report["methods"]
    ours = methods[OURS]
    sizes = list(ours["sizes"])
    counted = ", ".join(size for size in sizes if int(size) in laleval.SEED_SIZES)
    print(f"\nrecall@20 % (random: 0.2), audiences of {report['tag']}, mean over seeds of {counted} and their jobs;")
    print(
        f"95 % intervals over audiences; CPU of {report['cores']} cores, training over all blocks, seeds one by one\n"
    )
    if report["tag"] != laleval.CHOSEN_ON and any("temporal" in block for block in report["blocks"]):
        print(f"The temporal block has the same audiences and seeds for every tag but {laleval.CHOSEN_ON}.\n")
    header = [*report["blocks"], "mean", "95%", "less ours", "95%", "train s", "ratio", "job ms", "ratio"]
    rows = []
    for name, m in methods.items():
        row = [f"{m['blocks'][block]:.3f}" for block in report["blocks"]]
        row += [f"{m['mean']:.4f}", "{:.3f} .. {:.3f}".format(*m["interval"])]
        beside = [f"{m['difference']:+.4f}", "{:+.4f} .. {:+.4f}".format(*m["difference_interval"])]
        row += ["", ""] if name == OURS else beside
        row += [f"{m['train_cpu_seconds']:.1f}", f"{m['train_cpu_seconds'] / ours['train_cpu_seconds']:.2f}"]
        row += [f"{m['job_cpu_ms']:.1f}", f"{m['job_cpu_ms'] / ours['job_cpu_ms']:.2f}"]
        rows.append((name, row))
    table(header, rows)
    print("\nby seed size, mean over blocks: recall@20 % / AUC / lift at 1 %\n")
    cell = "{recall:.3f} / {auc:.3f} / {lift:4.1f}".format
    table(sizes, [(name, [cell(**m["sizes"][size]) for size in sizes]) for name, m in methods.items()])
    rank = report["rank"]
    print(f"\n{OURS}: rank, which adds recall, relevance and the order, takes {rank['cpu_ms']:.1f} ms for one seed; "
          f"the recall it reports\nless the true one: mean {rank['recall_error_mean']:+.3f}, "
          f"root mean square {rank['recall_error_rms']:.3f}")  # fmt: skip


def table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Columns as wide as what is in them, to the right of the rows' names; titles of two words on two lines."""
    titles = [title.rpartition(" ")[::2] for title in header]
    lines = [("", [upper for upper, _ in titles]), ("", [lower for _, lower in titles]), *rows]
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[i]) for _, cells in lines) for i in range(len(header))]
    for name, cells in lines if any(lines[0][1]) else lines[1:]:
        print(f"{name:{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
