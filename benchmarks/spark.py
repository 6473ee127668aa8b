"""Training and scoring on Spark beside one machine, from one run: `python -m benchmarks.spark [--shrink N]`.

The same Parquet files (200,000 users x 20,000 items, 12 million interactions) are fitted by `Lookalike.fit` and by
`fit_on_spark` with a local master of as many cores, whose vectors stay in Spark. Printed are the seconds of each
(wall, and CPU of the process and its children: JVM and Python workers), those of one seed, and whether the results are
the same. On one machine Spark cannot win; what it costs here is what a cluster has to make up for.

Every measurement has a process of its own. Needs the extra `spark` and Java 17. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.lookalike import table
from benchmarks.population import Population
from benchmarks.scale import MEDIUM, alone, family, import_everything, say, shrunk
from whiteroom.engines.lookalike import Lookalike

SEED_SIZE = 500
OPTIONS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "3g",
    "spark.sql.shuffle.partitions": "16",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.spark", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shrink", type=int, default=1, metavar="N", help="divide users and interactions by N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--dir", type=Path, help="where the temporary files go")
    arguments = parser.parse_args(argv)
    population = shrunk(MEDIUM, arguments.shrink)
    report: dict[str, Any] = {"cores": os.cpu_count(), "interactions": population.interactions}
    with tempfile.TemporaryDirectory(prefix="whiteroom-spark-", dir=arguments.dir) as name:
        directory = Path(name)
        paths = population.write(directory / "interactions")
        for title, measure in (("one machine", measure_one_machine), ("Spark", measure_spark)):
            report[title] = alone(measure, population, paths, directory / title)
            say(f"{title}: {report[title]['wall_seconds']:.1f} s")
        report["same"] = compared(population, directory / "one machine", directory / "Spark")
    columns = {"wall_seconds": "train wall s", "cpu_seconds": "train CPU s", "score_seconds": "seed wall s"}
    columns["save_seconds"] = "save wall s"
    print(f"\n{population.users:,} users x {population.items:,} items, {population.interactions:,} interactions in "
          f"Parquet; {os.cpu_count()} cores\n")  # fmt: skip
    rows = [(title, [f"{report[title][name]:.2f}" for name in columns]) for title in ("one machine", "Spark")]
    table(list(columns.values()), rows)
    print("\n" + "\n".join(f"{name}: {value}" for name, value in report["same"].items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def measure_one_machine(population: Population, paths: Sequence[Path], directory: Path) -> dict[str, Any]:
    import_everything()
    clock = Clock()
    model = Lookalike().fit(list(paths))
    return clock.stop() | used(model, population, directory)


def measure_spark(population: Population, paths: Sequence[Path], directory: Path) -> dict[str, Any]:
    from whiteroom.engines.lookalike import spark

    import_everything()
    directory.mkdir()
    options = OPTIONS | {"spark.local.dir": str(directory), "spark.sql.warehouse.dir": str(directory)}
    session = spark.session(f"local[{os.cpu_count()}]", options)
    session.sparkContext.setLogLevel("ERROR")
    session.range(1).count()  # the JVM is up
    clock = Clock()
    model = spark.fit_on_spark(Lookalike(), session.read.parquet(*map(str, paths)), collect=False)
    try:
        return clock.stop() | used(model, population, directory)
    finally:
        session.stop()


def used(model: Lookalike, population: Population, directory: Path) -> dict[str, float]:
    """Wall seconds of a seed, the best of three, and of saving the model."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.score(seed(population))
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    model.save(directory / "model")
    return {"score_seconds": min(seconds), "save_seconds": time.perf_counter() - start}


def seed(population: Population) -> pa.Array:
    return population.user_ids.take(pa.array(population.audiences[0][:SEED_SIZE]))


def compared(population: Population, *directories: Path) -> dict[str, Any]:
    """How the two models differ."""
    one, other = (Lookalike.load(directory / "model") for directory in directories)
    scores = [model.score(seed(population)) for model in (one, other)]
    best = [set(np.argsort(-score)[: one.n_users_ // 100].tolist()) for score in scores]
    vectors = [model.space_.vectors * model.space_.scale for model in (one, other)]
    differences = np.abs(vectors[0] - vectors[1]) / vectors[0].std(axis=0)
    arrays = [model.embedding_.arrays() for model in (one, other)]
    return {
        "same user ids": one.user_ids_.equals(other.user_ids_),
        "same item ids": one.item_ids_.equals(other.item_ids_),
        "same embedding, bit for bit": all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0]),
        "largest difference of a vector's number, in its dimension's standard deviations": float(differences.max()),
        "largest difference of a score (standard deviation 1)": float(np.abs(scores[0] - scores[1]).max()),
        "share of the best 1 % that both name": len(best[0] & best[1]) / len(best[0]),
    }


class Clock:
    """Wall seconds, and CPU seconds of this process and its living descendants, since it was made."""

    def __init__(self) -> None:
        self.cpu, self.wall = tree_seconds(), time.perf_counter()

    def stop(self) -> dict[str, Any]:
        return {"cpu_seconds": tree_seconds() - self.cpu, "wall_seconds": time.perf_counter() - self.wall}


def tree_seconds() -> float:
    return sum(sum(one.cpu_times()[:2]) for one in family(os.getpid()))


if __name__ == "__main__":
    sys.exit(main())
