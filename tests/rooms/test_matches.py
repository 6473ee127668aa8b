"""Whether enough of a seed is known: never too few, and without saying how many."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.engines.populations import names, small, tribes
from whiteroom.engines.lookalike import Lookalike
from whiteroom.jobs.kinds import JobError
from whiteroom.rooms.audience_generation import check_matches

USERS = 1200
LEAST = 25


@pytest.fixture(scope="module")
def engine() -> Lookalike:
    return small().fit(tribes(users=USERS)[0])


def code(engine: Lookalike, seed: list[str], epsilon: float, largest: int = 240) -> str:
    try:
        check_matches(engine, seed, least=LEAST, largest=largest, epsilon=epsilon)
    except JobError as error:
        return error.failure.status_code
    return "passes"


def seed(matched: int, name: int = 0, junk: int = 100) -> list[str]:
    """So many users of the model and as many ids that it does not know; different for every name."""
    return [*names(np.arange(matched)), *(f"nobody-{name}-{n}" for n in range(junk))]


def test_without_noise_the_minimum_is_exact(engine: Lookalike) -> None:
    assert code(engine, seed(LEAST), 0) == "passes"
    assert code(engine, seed(LEAST - 1), 0) == "SEED_MATCH_BELOW_MINIMUM"
    assert code(engine, seed(USERS - 1), 0) == "passes"
    assert code(engine, seed(USERS), 0) == "SEED_COVERS_MODEL"
    assert code(engine, seed(USERS), 0, largest=0) == "passes"


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
def test_with_noise_too_few_never_pass_and_enough_always_do(engine: Lookalike, epsilon: float) -> None:
    always = LEAST + 2 * engine.noise(seed(1), epsilon).slack
    for name in range(40):
        assert code(engine, seed(0, name), epsilon) == "SEED_MATCH_BELOW_MINIMUM"
        assert code(engine, seed(LEAST - 1, name), epsilon) == "SEED_MATCH_BELOW_MINIMUM"
        assert code(engine, seed(always, name), epsilon) == "passes"
    between = {code(engine, seed((LEAST + always) // 2, name), epsilon) for name in range(40)}
    assert between == {"passes", "SEED_MATCH_BELOW_MINIMUM"}


def test_a_seed_that_passes_leaves_every_size_whole(engine: Lookalike) -> None:
    """A size that were cut short would tell by how many users the seed matched."""
    for name in range(40):
        assert code(engine, seed(USERS - 239, name), 2.0) == "SEED_COVERS_MODEL"
        assert code(engine, seed(USERS - 300, name), 2.0) == "passes"


def test_the_same_seed_is_judged_the_same_again(engine: Lookalike) -> None:
    for name in range(10):
        assert len({code(engine, seed(40, name), 1.0) for _ in range(3)}) == 1


@pytest.mark.parametrize("epsilon", [0, 1.0])
def test_the_refusal_does_not_say_how_many_matched(engine: Lookalike, epsilon: float) -> None:
    told = []
    for matched in (3, 7):
        with pytest.raises(JobError) as refused:
            check_matches(engine, seed(matched), least=LEAST, largest=240, epsilon=epsilon)
        told.append(refused.value.failure.message)
    assert told[0] == told[1]
    assert set(re.findall(r"\d+", told[0])) <= {str(LEAST), str(LEAST + 2 * engine.noise(seed(1), 1.0).slack)}
