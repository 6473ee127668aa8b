"""The demo: on a made-up population, on files of one's own, and on files that will not do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pytest

from tests.cli.conftest import ENVIRONMENT, CommandLine
from tests.server import running


def audiences(output: Path) -> dict[int, list[str]]:
    """The users of each audience file, best first, by its percentage."""
    files = sorted(output.glob("audience-*-percent.jsonl"))
    return {
        int(file.name.split("-")[1]): [json.loads(line)["user_id"] for line in file.read_text().splitlines()]
        for file in files
    }


def svg(report: Path) -> ElementTree.Element:
    picture = re.search(r"<svg.*?</svg>", report.read_text(), re.DOTALL)
    assert picture
    return ElementTree.fromstring(picture[0])


def test_the_demo_goes_from_people_to_audiences_far_better_than_chance(cli: CommandLine, tmp_path: Path) -> None:
    output = tmp_path / "report"
    started = time.monotonic()
    result = cli("demo", "--output", str(output), data_dir=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert time.monotonic() - started < 200  # half a minute where nothing else runs

    rows = re.findall(r"(\d+) % +([\d,]+) .*? ([+-]\d\.\d\d) .*? (\d+)% +([\d.]+)% +([\d.]+)x", result.stdout)
    assert [int(row[0]) for row in rows] == [1, 2, 5, 10, 20]
    assert [int(row[1].replace(",", "")) for row in rows] == [200, 400, 1000, 2000, 4000]
    relevance = [float(row[2]) for row in rows]
    assert relevance == sorted(relevance, reverse=True)
    found = {int(row[0]): int(row[3]) for row in rows}
    assert found[5] > 40
    assert found[20] > 75
    recall = re.search(r"own recall metric: (\d+)%", result.stdout)
    assert recall
    assert abs(int(recall[1]) - found[20]) < 15

    exported = audiences(output)
    assert {percent: len(users) for percent, users in exported.items()} == {
        1: 200, 2: 400, 5: 1000, 10: 2000, 20: 4000
    }  # fmt: skip
    assert exported[1] == exported[20][:200], "a smaller audience is the beginning of a larger one"
    assert svg(output / "report.html").findall(".//polyline")
    assert "chance" in svg(output / "report.html").itertext()
    assert not [p for p in psutil.process_iter(["cmdline"]) if "whiteroom-demo-" in " ".join(p.info["cmdline"] or [])]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with clicks.csv of a small shop, in its own column names, and customers.txt, 60 of one taste."""
    directory = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(3)
    taste = rng.integers(0, 4, size=600)
    users = np.repeat(np.arange(600), 12)
    own_items = taste[users] * 25 + rng.integers(0, 25, size=len(users))
    items = np.where(rng.random(len(users)) < 0.8, own_items, rng.integers(0, 100, size=len(users)))
    table = pa.table({"Customer ID": users, "sku": pa.array([f"sku-{item}" for item in items])})
    pyarrow.csv.write_csv(table, directory / "clicks.csv")
    customers = np.flatnonzero(taste == 0)[:60]
    (directory / "customers.txt").write_text("customer id\n" + "\n".join(map(str, customers)) + "\n")
    return directory


@pytest.fixture
def worker(cli: CommandLine) -> Iterator[Callable[[], None]]:
    """Starts a worker of its own on the data directory; it must end with code 0 when it is asked to."""
    started = []

    def start() -> None:
        command = [sys.executable, "-m", "whiteroom", "worker", "--data-dir", str(cli.data_dir)]
        started.append(subprocess.Popen(command, env=ENVIRONMENT))

    yield start
    for process in started:
        process.terminate()
        assert process.wait(20) == 0


def test_the_demo_runs_on_ones_own_files_at_a_server_and_a_worker_that_run_already(
    own: Path, cli: CommandLine, worker: Callable[[], None]
) -> None:
    output = cli.data_dir.parent / "report"
    files = ("--interactions", str(own / "clicks.csv"), "--seed", str(own / "customers.txt"))
    with running(cli.data_dir, "--workers", "0") as server:
        worker()
        result = cli("demo", *files, "--output", str(output), AWS_PROFILE="one that is not there")
        assert result.returncode == 0, result.stdout + result.stderr
        assert server.process is not None
        assert server.process.poll() is None
        assert len(json.loads(cli.done("bucket", "list", "--json"))) == 2
    assert "600 users, 100 items, 7,200 interactions" in " ".join(result.stdout.split())
    assert "12 held out to measure with" in " ".join(result.stdout.split())
    assert list(audiences(output)) == [5, 10, 20]
    found = re.search(r"20 % .*? (\d+)% +[\d.]+% +[\d.]+x", result.stdout)
    assert found
    assert int(found[1]) > 60


CLICKS = "user_id,item_id\n" + "".join(f"u{n % 200},i{n % 37}\n" for n in range(4000))
SEED = "\n".join(f"u{n}" for n in range(30))


@pytest.mark.parametrize(
    ("clicks", "seed", "told"),
    [
        (None, SEED, "Cannot read"),
        ("", SEED, "clicks.csv is neither Parquet nor CSV"),
        ("user_id,item_id\n", SEED, "holds no rows"),
        ("who,what\nu1,i1\n", SEED, "has the columns who, what: say which one with --user-column"),
        ("user_id,item_id\n1.5,i1\n", SEED, "ids must be strings or whole numbers"),
        ("user_id,item_id,timestamp\nu1,i1,soon\n", SEED, "times must be Unix seconds or timestamps"),
        (CLICKS, None, "Cannot read"),
        (CLICKS, "", "seed.txt holds no ids"),
        (CLICKS, "x1\nx2\n", "Of the 2 ids in"),
        (CLICKS, "u1\nu2\n", "at least 25 must be"),
        (CLICKS, '{"user_id": "u1"}\n{"user_id": ', "Line 2 of"),
        (CLICKS, '{"name": "u1"}\n', 'Line 1 of'),
        (CLICKS, "a,b\n1,2\n", "has the columns a, b"),
    ],
)  # fmt: skip
def test_files_that_will_not_do_are_told_apart(
    cli: CommandLine, tmp_path: Path, clicks: str | None, seed: str | None, told: str
) -> None:
    for name, text in (("clicks.csv", clicks), ("seed.txt", seed)):
        if text is not None:
            (tmp_path / name).write_text(text)
    files = ("--interactions", str(tmp_path / "clicks.csv"), "--seed", str(tmp_path / "seed.txt"))
    assert told in cli.refused("demo", *files)
    assert not cli.data_dir.exists()


def test_a_seed_without_interactions_is_refused(cli: CommandLine) -> None:
    assert "both --interactions and --seed" in cli.refused("demo", "--seed", "seed.txt")


def test_a_column_that_is_not_there_is_named(cli: CommandLine, own: Path) -> None:
    files = ("--interactions", str(own / "clicks.csv"), "--seed", str(own / "customers.txt"))
    words = cli.refused("demo", *files, "--item-column", "article")
    assert "has no column 'article' (--item-column); it has Customer ID, sku" in words
