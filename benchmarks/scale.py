"""The engine at size, beside its peers, from one run: `python -m benchmarks.scale [--shrink N] [--large]`.

1. 200,000 users x 20,000 items, 12 million interactions: CPU and wall seconds from Parquet to a model, peak memory,
   and quality (recall of planted 2 % audiences in the first 2 % of the ranking) for ours, ALS of `implicit` and R1.
2. How training grows: the exponent fitted to an eighth, a quarter, a half and all of that.
3. With --large, 2 million users x 50,000 items, 100 million interactions: training in bounded memory, the scoring
   pass against the bandwidth of the memory, and generation jobs on a real server. Takes about 5 GB of disk.

Every measurement has a process of its own. --shrink divides users and interactions by N. Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from benchmarks import laleval
from benchmarks.lookalike import OURS, table
from benchmarks.peers import Method, Vectors, als, r1
from benchmarks.population import AUDIENCE_SHARE, Population
from whiteroom.engines.lookalike import Lookalike

MEDIUM = Population(users=200_000, items=20_000, interactions=12_000_000)
LARGE = Population(users=2_000_000, items=50_000, interactions=100_000_000)
FRACTIONS = (8, 4, 2, 1)
SEED_SIZES = (25, 100, 500)
PEERS: dict[str, Callable[[], Method]] = {"implicit ALS-64 + ridge": lambda: Vectors(als), "R1": r1}
MEMORY_GOAL = 8 * 10**9
MEMORY_LIMIT = 10 * 10**9
"""A process that takes more is ended: a benchmark must not swap the machine to death."""
GB = 10**9


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shrink", type=int, default=1, metavar="N", help="divide users and interactions by N")
    parser.add_argument("--large", action="store_true", help="part 3 as well")
    parser.add_argument("--only-large", action="store_true", help="part 3 alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw the figures into this directory")
    parser.add_argument("--dir", type=Path, help="where the temporary files go")
    arguments = parser.parse_args(argv)
    report: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="whiteroom-scale-", dir=arguments.dir) as name:
        if not arguments.only_large:
            report |= medium(shrunk(MEDIUM, arguments.shrink), Path(name))
        if arguments.large or arguments.only_large:
            report |= large(shrunk(LARGE, arguments.shrink), Path(name))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.pictures and "growth" in report:
        from benchmarks import pictures

        pictures.draw_scale(report, arguments.pictures)
    return 0


def shrunk(population: Population, by: int) -> Population:
    return replace(population, users=population.users // by, interactions=population.interactions // by)


# 1 and 2: beside the peers, and how training grows --------------------------------------------------------------------


def medium(population: Population, directory: Path) -> dict[str, Any]:
    growth: dict[str, Any] = {"interactions": [], "cpu_seconds": []}
    methods = {}
    for fraction in FRACTIONS:
        part = shrunk(population, fraction)
        paths = part.write(directory / f"1-{fraction}")
        measured = alone(measure_ours, part, paths, fraction == 1)
        growth["interactions"].append(measured["interactions"])
        growth["cpu_seconds"].append(measured["cpu_seconds"])
        say(f"{part.interactions:,} interactions: {measured['cpu_seconds']:.1f} s")
    methods[OURS] = measured
    for name in PEERS:
        methods[name] = alone(measure_peer, population, paths, name)
        say(f"{name}: {methods[name]['cpu_seconds']:.1f} s")
    growth |= fitted_power(growth["interactions"], growth["cpu_seconds"])
    ours = methods[OURS]
    print(f"\n{population.users:,} users x {population.items:,} items, {ours['interactions']:,} interactions with "
          f"string ids in Parquet; {os.cpu_count()} cores;\n"
          "quality: recall of a 2 % audience in the first 2 % of the ranking, by seed size\n")  # fmt: skip
    header = ["read CPU s", "train CPU s", "both CPU s", "ratio", "both wall s", "peak GB", "job CPU ms"]
    rows = []
    for name, m in methods.items():
        parts = (
            [f"{m['read_cpu_seconds']:.1f}", f"{m['train_cpu_seconds']:.1f}"] if "read_cpu_seconds" in m else ["", ""]
        )
        row = [*parts, f"{m['cpu_seconds']:.1f}", f"{m['cpu_seconds'] / ours['cpu_seconds']:.2f}"]
        row += [f"{m['wall_seconds']:.1f}", f"{m['peak_bytes'] / GB:.2f}", f"{m['job_cpu_ms']:.0f}"]
        rows.append((name, row + [f"{recall:.3f}" for recall in m["recall"].values()]))
    table([*header, *ours["recall"]], rows)
    fits = ", ".join(f"{s:.1f} s at {n:,}" for n, s in zip(growth["interactions"], growth["cpu_seconds"], strict=True))
    print(f"\nCPU seconds of {OURS} grow as interactions to the power {growth['exponent']:.3f} "
          f"(root mean square residual {growth['residual']:.1%}): {fits}")  # fmt: skip
    return {"methods_at_scale": methods, "growth": growth}


def measure_ours(population: Population, paths: Sequence[Path], with_quality: bool) -> dict[str, Any]:
    import_everything()
    clock = Clock()
    model = Lookalike().fit(list(paths))
    result = clock.stop() | {"interactions": model.n_interactions_}
    if with_quality:
        result |= quality(population, model.user_ids_, lambda rows: model.score(model.user_ids_.take(pa.array(rows))))
    return result


def measure_peer(population: Population, paths: Sequence[Path], name: str) -> dict[str, Any]:
    import_everything()
    clock = Clock()
    X, user_ids = read(paths)
    reading = clock.stop()["cpu_seconds"]
    method = PEERS[name]().fit(X)
    result = clock.stop()
    result |= {"read_cpu_seconds": reading, "train_cpu_seconds": result["cpu_seconds"] - reading}
    return result | quality(population, user_ids, lambda rows: method.scores([rows])[:, 0])


def import_everything() -> None:
    """What is imported late takes a second, which is no part of training."""
    pairs = sp.random(100, 50, density=0.1, format="coo", random_state=0, dtype=np.float32)
    Lookalike().fit(pa.table({"user_id": pairs.row, "item_id": pairs.col}))
    als(pairs.tocsr())


def read(paths: Sequence[Path]) -> tuple[sp.csr_matrix, pa.Array]:
    """What everybody would write: (users x items with 1 + log(count), user ids)."""
    both = [pq.read_table(path, columns=["user_id", "item_id"]) for path in paths]
    columns = pa.concat_tables(both).combine_chunks()
    users, items = (columns[name].combine_chunks().dictionary_encode() for name in ("user_id", "item_id"))
    del both, columns
    ones = np.ones(len(users), np.float32)
    X = sp.csr_matrix((ones, (users.indices.to_numpy(), items.indices.to_numpy())))
    X.sum_duplicates()
    X.data = 1 + np.log(X.data)
    return X, users.dictionary


def quality(population: Population, user_ids: pa.Array, score: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Mean recall by seed size, and the CPU time of one seed. `score` takes positions in `user_ids`."""
    row = pc.index_in(population.user_ids, user_ids).to_numpy()
    recall, seconds = {}, []
    for size in SEED_SIZES:
        if size > len(population.audiences[0]) // 2:
            continue  # of a shrunk audience too little would be left to find
        found = []
        for number, audience in enumerate(population.audiences):
            rows = row[audience].astype(np.int64)
            job = laleval.Job(str(number), np.sort(rows[:size]), rows)
            start = time.process_time()
            scores = score(job.seed)
            seconds.append(time.process_time() - start)
            found.append(laleval.recall(scores, job, top=AUDIENCE_SHARE))
        recall[str(size)] = float(np.mean(found))
    return {"recall": recall, "job_cpu_ms": 1000 * float(np.mean(seconds))}


def fitted_power(sizes: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """seconds ~ sizes ** exponent by least squares of logarithms; the residual as a share of the seconds."""
    x, y = np.log(sizes), np.log(seconds)
    exponent, level = np.polyfit(x, y, 1)
    residual = float(np.sqrt(np.mean(np.square(y - level - exponent * x))))
    return {"exponent": float(exponent), "residual": residual}


# 3: large -------------------------------------------------------------------------------------------------------------


def large(population: Population, directory: Path) -> dict[str, Any]:
    start = time.perf_counter()
    paths = population.write(directory / "large")
    size = sum(path.stat().st_size for path in paths)
    say(f"{len(paths)} files, {size / GB:.2f} GB, written in {time.perf_counter() - start:.0f} s")
    model = directory / "model"
    training = alone(train_and_save, paths, model)
    print(f"\n{population.users:,} users x {population.items:,} items, {training['interactions']:,} interactions: "
          f"trained in {training['cpu_seconds']:.0f} CPU s, {training['wall_seconds']:.0f} s of wall, at most "
          f"{training['peak_bytes'] / GB:.2f} GB of memory ({training['peak_bytes'] / MEMORY_GOAL:.0%} of 8 GB); "
          f"model {training['model_bytes'] / GB:.2f} GB on disk")  # fmt: skip
    scoring = alone(measure_scoring, population, model)
    print(f"scoring one seed, matching its ids included: {scoring['score']:.2f} s; the pass over the vectors alone:")
    table(
        ["s", "M users/s", "GB/s", *(f"share of {name}" for name in scoring["bandwidth"])],
        [
            (
                name,
                [
                    f"{one['seconds']:.3f}",
                    f"{population.users / one['seconds'] / 1e6:.0f}",
                    f"{one['bytes'] / one['seconds'] / GB:.1f}",
                    *(f"{one['bytes'] / one['seconds'] / rate:.2f}" for rate in scoring["bandwidth"].values()),
                ],
            )
            for name, one in scoring["passes"].items()
        ],
    )
    job = alone(measure_job, population, paths, directory / "server")
    seconds = ", ".join(f"{s:.2f}" for s in job["seconds"])
    print(f"generation jobs on a server, from start to ACTIVE: {seconds} s (trained there in {job['training']:.0f} s)")
    return {"large": training, "scoring": scoring, "generation_job": job}


def train_and_save(paths: Sequence[Path], directory: Path) -> dict[str, Any]:
    clock = Clock()
    model = Lookalike().fit(list(paths))
    result = clock.stop() | {"interactions": model.n_interactions_}
    model.save(directory)
    return result | {"model_bytes": sum(file.stat().st_size for file in directory.iterdir())}


def measure_scoring(population: Population, directory: Path) -> dict[str, Any]:
    """Wall seconds of `score` and of its pass over the vectors, the best of five, beside the memory's bandwidth.

    The pass is measured over the vectors as they are kept, and over the same as float32, where nothing but reading
    them takes time. The bandwidth is that of a sum and a copy of as many bytes, in the same minute.
    """
    model = Lookalike.load(directory)
    space = model.space_
    seed = population.user_ids.take(pa.array(population.audiences[0][:500]))
    weights = np.ones(space.vectors.shape[1], np.float32)
    plain = replace(space, vectors=space.vectors.astype(np.float32), scale=np.ones_like(weights))
    passes = {
        f"{one.vectors.dtype} vectors": {
            "seconds": best_of_five(partial(one.scores, weights)),
            "bytes": one.vectors.nbytes,
        }
        for one in (space, plain)
    }
    array = plain.vectors.ravel()
    target = np.empty_like(array)
    halves = np.array_split(array, 2)
    with ThreadPoolExecutor(2) as two:
        bandwidth = {
            "a sum, 2 threads": array.nbytes / best_of_five(lambda: list(two.map(np.sum, halves))),
            "a copy": 2 * array.nbytes / best_of_five(lambda: np.copyto(target, array)),
        }
    return {"score": best_of_five(lambda: model.score(seed)), "passes": passes, "bandwidth": bandwidth}


def best_of_five(call: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure_job(population: Population, paths: Sequence[Path], data_dir: Path) -> dict[str, Any]:
    """Wall seconds of three generation jobs, from StartAudienceGenerationJob to a Get that says ACTIVE."""
    from tests.population import configure, dataset_request, put_seed, register_table, start
    from tests.server import ENDINGS, running

    def ended(get: Callable[..., dict[str, Any]], **arn: str) -> dict[str, Any]:
        while (document := get(**arn))["status"] not in ENDINGS:
            time.sleep(0.02)
        if document["status"] != "ACTIVE":
            raise RuntimeError(f"The job failed: {document.get('statusDetails')}")
        return document

    seconds = []
    with running(data_dir) as server:
        account = server.account("111122223333", "shop", "shop-data")
        for path in paths:
            account.s3.upload_file(str(path), "shop-data", f"views/{path.name}")
        register_table(server, account, "views", "s3://shop-data/views")
        dataset = account.ml.create_training_dataset(**dataset_request(account, "views", "views"))
        began = time.perf_counter()
        model = account.ml.create_audience_model(name="model", trainingDatasetArn=dataset["trainingDatasetArn"])
        arn = ended(account.ml.get_audience_model, audienceModelArn=model["audienceModelArn"])["audienceModelArn"]
        training = time.perf_counter() - began
        configured = configure(account, "model", arn, "s3://shop-data/audiences/")
        for number, audience in enumerate(population.audiences[:3]):
            ids = population.user_ids.take(pa.array(audience[:500])).to_pylist()
            seed = put_seed(account, "shop-data", f"seed-{number}.jsonl", ids)
            began = time.perf_counter()
            job = start(account, f"job-{number}", configured, seed)
            ended(account.ml.get_audience_generation_job, audienceGenerationJobArn=job)
            seconds.append(time.perf_counter() - began)
    return {"training": training, "seconds": seconds}


# Processes ------------------------------------------------------------------------------------------------------------


class Clock:
    """CPU seconds (children that ended included) and wall seconds since it was made, and the peak memory so far."""

    def __init__(self) -> None:
        self.cpu, self.wall = cpu_seconds(), time.perf_counter()

    def stop(self) -> dict[str, Any]:
        peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
        return {
            "cpu_seconds": cpu_seconds() - self.cpu,
            "wall_seconds": time.perf_counter() - self.wall,
            # Not ru_maxrss, which starts at what the parent of this process held.
            "peak_bytes": int(peak) * 1024,
        }


def cpu_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def alone(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The function's result from a new process, which is ended when it takes more than MEMORY_LIMIT."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    while not ours.poll(0.2):
        if sum(one.memory_info().rss for one in family(process.pid)) > MEMORY_LIMIT:
            for one in family(process.pid):
                one.kill()
            raise SystemExit(f"{function.__name__} took more than {MEMORY_LIMIT / GB:.0f} GB of memory and was ended.")
    try:
        result: dict[str, Any] = ours.recv()
    except EOFError:
        raise SystemExit(f"{function.__name__} failed; its error is above.") from None
    process.join()
    return result


def _send(connection: Connection, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    connection.send(function(*arguments))


def family(pid: int | None) -> list[psutil.Process]:
    """A process and its children."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
