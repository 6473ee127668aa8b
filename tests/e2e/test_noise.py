"""What an advertiser is told of its seed when the server adds noise, as it does unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Parties
from tests.population import generate, put_seed
from tests.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir: Path = tmp_path_factory.mktemp("noisy") / "data"
    with running(data_dir, environment={"WHITEROOM_LIMITS_METRICS_EPSILON": "2"}) as server:
        yield server


def told(parties: Parties, name: str, ids: list[str], *, by_owner: bool = False) -> dict[str, Any]:
    account = parties.publisher if by_owner else parties.advertiser
    bucket = "publisher-data" if by_owner else "advertiser-seeds"
    job = generate(account, name, parties.configured_arn, put_seed(account, bucket, f"{name}.jsonl", ids))
    return job.get("metrics") or job["statusDetails"]


def test_the_same_seed_is_always_told_the_same_and_any_other_something_else(parties: Parties) -> None:
    seed = parties.population.audience[:200]
    first = told(parties, "first", seed)
    assert told(parties, "again", list(reversed(seed))) == first
    others = [told(parties, f"junk-{i}", [*seed, f"nobody-{i}"]) for i in range(3)]
    assert any(other != first for other in others), "an id that nobody has must not be seen as such"
    exact = told(parties, "exact", seed, by_owner=True)
    assert exact["recallMetric"] == pytest.approx(first["recallMetric"], abs=0.3)


def test_a_seed_below_the_minimum_never_passes(parties: Parties) -> None:
    for i in range(3):
        short = parties.population.audience[i : i + 24]
        assert told(parties, f"short-{i}", [*short, *(f"nobody-{n}" for n in range(50))])["statusCode"] == (
            "SEED_MATCH_BELOW_MINIMUM"
        )


def test_a_seed_that_leaves_too_few_does_not_say_how_few(parties: Parties) -> None:
    """The number of users whom the seed did not match would tell how many it did."""
    assert told(parties, "nearly-all", parties.population.users[:-11])["statusCode"] == "SEED_COVERS_MODEL"
