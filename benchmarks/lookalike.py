"""Quality and cost of the lookalike engine beside its peers, from one run: `python -m benchmarks.lookalike [--quick]`.

Prints recall@20 % on every LAL-Eval block that the data directory (WHITEROOM_DATA) has, the seconds of CPU that
training takes and the milliseconds that scoring one seed takes, and each method's ratios to ours.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict

import numpy as np

from benchmarks import laleval
from benchmarks.peers import METHODS

QUICK_JOBS = 24
"""Jobs of each block in a quick run."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"seeds of 100 only, {QUICK_JOBS} jobs a block")
    parser.add_argument("--tag", default="v2", help="which audiences to draw; v1 are those the recipe was chosen on")
    parser.add_argument("--only", help="methods whose name contains this")
    arguments = parser.parse_args(argv)
    sizes = (100,) if arguments.quick else laleval.SEED_SIZES
    methods = {name: make for name, make in METHODS.items() if not arguments.only or arguments.only in name}
    recalls: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(dict)
    train_seconds: dict[str, list[float]] = defaultdict(list)
    job_seconds: dict[str, list[float]] = defaultdict(list)
    for block in laleval.blocks(arguments.tag, sizes=sizes):
        jobs = block.jobs
        if arguments.quick:
            jobs = [jobs[i] for i in np.unique(np.linspace(0, len(jobs) - 1, QUICK_JOBS).astype(int))]
        shape = f"{block.X.shape[0]:,} users x {block.X.shape[1]:,} items, {len(jobs)} jobs"
        print(f"{block.name}: {shape}", file=sys.stderr, flush=True)
        for name, make in methods.items():
            method = make()
            start = time.process_time()
            method.fit(block.X)
            train_seconds[name].append(time.process_time() - start)
            by_size: dict[int, list[float]] = defaultdict(list)
            for job in jobs:
                start = time.process_time()
                scores = method.score(job.seed)
                job_seconds[name].append(time.process_time() - start)
                by_size[len(job.seed)].append(laleval.recall(scores, job))
            recalls[block.name][name] = by_size
    if not recalls:
        print(f"Skipped: there is no data under {laleval.data_directory()}; set WHITEROOM_DATA.")
        return 0
    report(recalls, train_seconds, job_seconds, sizes)
    return 0


def report(recalls: dict, train_seconds: dict, job_seconds: dict, sizes: tuple[int, ...]) -> None:  # type: ignore[type-arg]
    names = list(train_seconds)
    ours = names[-1]
    print(f"\nrecall@20 %, mean over seeds of {', '.join(map(str, sizes))} and their jobs (random: 0.2); CPU, "
          f"{os.cpu_count()} cores\n")  # fmt: skip
    header = [*recalls, "mean", "train s", "ratio", "job ms", "ratio"]
    print(f"{'':30}" + "".join(f"{column:>{max(9, len(column) + 2)}}" for column in header))
    for name in names:
        # A block's figure is the mean over all its jobs: larger audiences, which allow larger seeds, count more.
        quality = [np.mean(np.concatenate(list(block[name].values()))) for block in recalls.values()]
        train, job = sum(train_seconds[name]), 1000 * float(np.mean(job_seconds[name]))
        cells = [f"{value:.3f}" for value in (*quality, np.mean(quality))]
        cells += [f"{train:.1f}", f"{train / sum(train_seconds[ours]):.2f}"]
        cells += [f"{job:.1f}", f"{job / (1000 * float(np.mean(job_seconds[ours]))):.2f}"]
        print(f"{name:30}" + "".join(f"{c:>{max(9, len(h) + 2)}}" for c, h in zip(cells, header, strict=True)))
    if len(sizes) > 1:
        print("\nby seed size, mean over blocks")
        print(f"{'':30}" + "".join(f"{size:>9}" for size in sizes))
        for name in names:
            means = [
                np.mean([np.mean(block[name][size]) for block in recalls.values() if block[name].get(size)])
                for size in sizes
            ]
            print(f"{name:30}" + "".join(f"{value:>9.3f}" for value in means))


if __name__ == "__main__":
    sys.exit(main())
