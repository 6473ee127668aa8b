"""Files of one's own are read in the forms that people have them in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from whiteroom.demo.own_files import CONSTANT_TIME, Columns, read

USERS = [f"u{n % 120}" for n in range(2400)]
ITEMS = [n % 31 for n in range(2400)]
SEED = [f"u{n}" for n in range(60)]
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def parquet(path: Path, **columns: object) -> Path:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    return parquet(tmp_path / "clicks.parquet", user_id=USERS, item_id=ITEMS)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    (tmp_path / "seed.txt").write_text("\n".join(SEED))
    return tmp_path / "seed.txt"


def ids(data) -> set[str]:
    return set(data.seed) | set(data.truth)


def test_a_fifth_of_the_seed_is_held_out_the_same_every_time(clicks: Path, seed: Path) -> None:
    data, again = read(clicks, seed, Columns()), read(clicks, seed, Columns())
    assert (len(data.seed), len(data.truth)) == (48, 12)
    assert ids(data) == set(SEED)
    assert (data.seed, data.truth) == (again.seed, again.truth)


def test_a_small_seed_is_given_whole(clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("\n".join(SEED[:30]))
    data = read(clicks, tmp_path / "small.txt", Columns())
    assert (data.seed, data.truth) == (SEED[:30], frozenset())


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(SEED),
        "\ufeffuser_id\r\n" + "\r\n".join(SEED) + "\r\n\r\n",
        "\n".join(f'"{user}"' for user in [*SEED, *SEED]),
        "\n".join(json.dumps({"user_id": user, "since": 3}) for user in SEED),
        "name,user_id\n" + "\n".join(f"x,{user}" for user in SEED),
    ],
    ids=["plain", "with a header and blank lines", "quoted and doubled", "JSON Lines", "CSV"],
)
def test_a_seed_is_read_in_every_form(clicks: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "seed").write_bytes(text.encode())
    assert ids(read(clicks, tmp_path / "seed", Columns())) == set(SEED)


def test_a_seed_in_parquet_matches_whole_numbers_by_their_digits(tmp_path: Path) -> None:
    clicks = parquet(tmp_path / "clicks.parquet", userId=[n % 120 for n in range(2400)], movieId=ITEMS)
    seed = parquet(tmp_path / "seed.parquet", userId=pa.array([*range(30), None], pa.float64()))
    data = read(clicks, seed, Columns())
    assert data.seed == [str(n) for n in range(30)]
    assert data.interactions.schema.field("user_id").type == pa.int64()


@pytest.mark.parametrize(
    "times",
    [
        pa.array([int(NEW_YEAR.timestamp())] * 2400),
        pa.array([int(NEW_YEAR.timestamp()) * 1000] * 2400),
        pa.array([int(NEW_YEAR.timestamp()) * 10**9] * 2400),
        pa.array([NEW_YEAR] * 2400, pa.timestamp("us", tz="UTC")),
        pa.array([NEW_YEAR.date()] * 2400, pa.date32()),
    ],
    ids=["seconds", "milliseconds", "nanoseconds", "timestamp", "date"],
)
def test_times_become_seconds(tmp_path: Path, seed: Path, times: pa.Array) -> None:
    clicks = parquet(tmp_path / "clicks.parquet", user_id=USERS, item_id=ITEMS, ts=times)
    data = read(clicks, seed, Columns())
    assert set(data.interactions["timestamp"].to_pylist()) == {int(NEW_YEAR.timestamp())}


def test_without_times_a_constant_one_stands_in_and_is_told(clicks: Path, seed: Path) -> None:
    data = read(clicks, seed, Columns())
    assert set(data.interactions["timestamp"].to_pylist()) == {CONSTANT_TIME}
    assert any("no times" in line for line in data.about)


def test_rows_without_a_user_or_an_item_are_left_out_and_counted(tmp_path: Path, seed: Path) -> None:
    clicks = parquet(tmp_path / "clicks.parquet", user_id=[*USERS, None, "u1"], item_id=[*ITEMS, 3, None])
    data = read(clicks, seed, Columns())
    assert data.interactions.num_rows == 2400
    assert any(line.startswith("2 rows") for line in data.about)


def test_columns_that_are_named_win_over_those_that_are_guessed(tmp_path: Path, seed: Path) -> None:
    clicks = parquet(tmp_path / "clicks.parquet", user_id=ITEMS, item_id=ITEMS, person=USERS, thing=ITEMS)
    data = read(clicks, seed, Columns(user="person", item="thing"))
    assert data.users == 120
