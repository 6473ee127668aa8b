"""Our server beside a moto server: requests, start-up and memory, from one run: `python -m benchmarks server`.

Rounds take turns between the servers, so that whatever else the machine does falls on both; figures are medians.
Every request is signed. moto checks no signature and keeps everything in memory; ours checks each and reads SQLite.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import contestants
from benchmarks.client import Connection, load
from benchmarks.contestants import RESOURCES, Contestant, Running

CONNECTIONS = (1, 8)
MEBI = 1 << 20
SETTLE_SECONDS = 2
"""A worker process is still importing when its server is ready; memory is measured this much later."""


@dataclass(frozen=True)
class Load:
    """One round of one kind of request on one server."""

    rate: float
    """Answers a second."""
    cpu_ms: float
    """CPU time that the server's processes spent on each answer."""
    p50_ms: float
    p99_ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks server", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of load and starts of each server (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each load (1)")
    parser.add_argument("--only", choices=("load", "start"), help="measure this alone")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="whiteroom-bench-") as directory:
        data_dir = Path(directory) / "data"
        everything = contestants.whiteroom(data_dir, "--s3-port", "0")
        api_alone = contestants.whiteroom(data_dir, "--s3-port", "-1", "--workers", "0")
        if options.only != "start":
            _print_loads(everything, contestants.moto(), options.rounds, options.seconds)
        if options.only != "load":
            _print_starts([everything, api_alone, contestants.moto()], options.rounds)
    return 0


def _print_loads(ours: Contestant, theirs: Contestant, rounds: int, seconds: float) -> None:
    with ours.running() as our_server, theirs.running() as their_server:
        their_server.fill()
        sizes, loads = _measure_loads((our_server, their_server), rounds, seconds)
    print(f"\nSigned requests, {rounds} rounds of {seconds:g} s in turns, medians; {RESOURCES} resources on each side")
    print(f"  whiteroom: GetTrainingDataset ({sizes[0]['Get']} bytes), ListTrainingDatasets ({sizes[0]['List']} bytes)")
    print(f"  moto:      GetCollaboration ({sizes[1]['Get']} bytes), ListCollaborations ({sizes[1]['List']} bytes)")
    print("  signed by botocore before the clock; verified by whiteroom, not by moto\n")
    print(f"{'':22}{'whiteroom':>12}{'moto':>12}{'ratio':>9}")
    shown: tuple[tuple[str, Callable[[Load], float]], ...] = (
        ("requests/s", lambda load: load.rate),
        ("server CPU ms/req", lambda load: load.cpu_ms),
        ("latency p50 ms", lambda load: load.p50_ms),
        ("latency p99 ms", lambda load: load.p99_ms),
    )
    for (verb, connections), sides in loads.items():
        print(f"{verb}, {connections} connection{'s' if connections > 1 else ''}")
        for label, figure in shown:
            a, b = (statistics.median(map(figure, side)) for side in sides)
            print(f"  {label:20}{a:12.2f}{b:12.2f}{a / b:9.2f}")


def _measure_loads(
    servers: tuple[Running, Running], rounds: int, seconds: float
) -> tuple[list[dict[str, int]], dict[tuple[str, int], tuple[list[Load], list[Load]]]]:
    """Bytes of the answers of each server, and the rounds by (verb, connections)."""
    paths = [{"Get": s.get_paths(), "List": [s.contestant.list_path]} for s in servers]
    sizes = [
        {verb: len(Connection(server.port).ask(server.signed(choice[0]))) for verb, choice in by_verb.items()}
        for server, by_verb in zip(servers, paths, strict=True)
    ]
    loads: dict[tuple[str, int], tuple[list[Load], list[Load]]] = defaultdict(lambda: ([], []))
    for _ in range(rounds):
        for verb in ("Get", "List"):
            for connections in CONNECTIONS:
                for server, by_verb, side in zip(servers, paths, loads[verb, connections], strict=True):
                    requests = [server.signed(path) for path in by_verb[verb]]
                    side.append(_load(server, requests, connections, seconds))
    return sizes, dict(loads)


def _load(server: Running, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    before = _cpu_seconds(server)
    latencies = sorted(load(server.port, requests, connections=connections, seconds=seconds))
    cpu = _cpu_seconds(server) - before
    count = len(latencies)
    return Load(
        rate=count / seconds,
        cpu_ms=1000 * cpu / (count + connections),  # each connection begins with one answer off the clock
        p50_ms=1000 * latencies[count // 2],
        p99_ms=1000 * latencies[count * 99 // 100],
    )


def _print_starts(servers: Sequence[Contestant], times: int) -> None:
    seconds: list[list[float]] = [[] for _ in servers]
    idle: list[dict[str, list[float]]] = [defaultdict(list) for _ in servers]
    with_s3: list[dict[str, list[float]]] = [defaultdict(list) for _ in servers]
    for _ in range(times):
        for i, contestant in enumerate(servers):
            server = contestant.start()
            try:
                seconds[i].append(server.wait_until_ready())
                if contestant.name == "moto":
                    server.fill()
                _ask_a_little(server)
                time.sleep(SETTLE_SECONDS)
                for part, size in _memory(server).items():
                    idle[i][part].append(size / MEBI)
                if "-1" not in contestant.command:
                    server.use_s3()
                for part, size in _memory(server).items():
                    with_s3[i][part].append(size / MEBI)
            finally:
                server.stop()
    print(f"\nStart-up and idle memory, {times} starts in turns, medians")
    print("  start-up: from the start of the process to the first answer to a signed List, everything being up")
    print("  memory: PSS of all processes of the server, holding 100 resources, after 10 Gets and 10 Lists;")
    print("    then once more when S3 has been used, which both start with the first request\n")
    print(f"{'':34}{'start s':>9}{'ratio':>8}{'idle MiB':>10}{'ratio':>8}{'with S3':>10}{'ratio':>8}")
    labels = ("whiteroom (API, worker, S3)", "whiteroom, API alone", "moto")
    for i, label in enumerate(labels):
        start, base = statistics.median(seconds[i]), statistics.median(seconds[-1])
        line = f"{label:34}{start:9.2f}{start / base:8.2f}"
        for parts in (idle, with_s3):
            line += f"{_total(parts[i]):10.1f}{_total(parts[i]) / _total(parts[-1]):8.2f}"
        print(line)
        for part, sizes in with_s3[i].items() if len(with_s3[i]) > 1 else ():
            before, after = (statistics.median(figures or [0]) for figures in (idle[i][part], sizes))
            print(f"    {part:30}{'':17}{before:10.1f}{'':8}{after:10.1f}")


def _total(parts: dict[str, list[float]]) -> float:
    return sum(statistics.median(sizes) for sizes in parts.values())


def _ask_a_little(server: Running) -> None:
    connection = Connection(server.port)
    for path in server.get_paths()[:10]:
        connection.ask(server.signed(path))
        connection.ask(server.signed(server.contestant.list_path))
    connection.close()


def _processes(server: Running) -> list[psutil.Process]:
    root = psutil.Process(server.process.pid)
    return [root, *root.children(recursive=True)]


def _cpu_seconds(server: Running) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _processes(server))


def _memory(server: Running) -> dict[str, int]:
    """Proportional set size in bytes by part; pages that processes share are divided among them."""
    sizes: dict[str, int] = defaultdict(int)
    for process in _processes(server):
        command = process.cmdline()
        part = "worker" if "worker" in command else "S3 (rclone)" if "s3" in command else "API"
        sizes[part] += process.memory_full_info().pss
    return dict(sizes)


if __name__ == "__main__":
    sys.exit(main())
