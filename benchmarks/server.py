"""Our server beside a moto server: requests, start-up and memory, from one run: `python -m benchmarks server`.

Rounds take turns between the servers, so that whatever else the machine does falls on both; figures are medians.
Every request is signed. moto checks no signature and keeps everything in memory; ours checks each and reads SQLite.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
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
    memory: list[dict[str, list[float]]] = [defaultdict(list) for _ in servers]
    for _ in range(times):
        for i, contestant in enumerate(servers):
            server = contestant.start()
            try:
                seconds[i].append(server.wait_until_ready())
                if contestant.name == "moto":
                    server.fill()
                    server.use_s3()
                _ask_a_little(server)
                for part, size in _memory(server).items():
                    memory[i][part].append(size / MEBI)
            finally:
                server.stop()
    print(f"\nStart-up and idle memory, {times} starts in turns, medians")
    print("  start-up: from the start of the process to the first answer to a signed List, everything being up")
    print("  memory: PSS of all processes of the server, holding 100 resources, after 10 Gets and 10 Lists;")
    print("    moto with its S3 in use, which it loads with the first request\n")
    moto_seconds, moto_memory = statistics.median(seconds[-1]), _total(memory[-1])
    print(f"{'':34}{'start s':>9}{'ratio':>8}{'MiB':>9}{'ratio':>8}")
    labels = ("whiteroom (API, worker, S3)", "whiteroom, API alone", "moto")
    for label, times_taken, parts in zip(labels, seconds, memory, strict=True):
        start, size = statistics.median(times_taken), _total(parts)
        print(f"{label:34}{start:9.2f}{start / moto_seconds:8.2f}{size:9.1f}{size / moto_memory:8.2f}")
        if len(parts) > 1:
            for part, sizes in parts.items():
                print(f"    {part:30}{'':17}{statistics.median(sizes):9.1f}")


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
