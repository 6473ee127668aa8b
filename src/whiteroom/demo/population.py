"""A made-up population whose true audience is known: latent tastes, and what people do because of them.

Everybody has a mixture of tastes, everything appeals to some tastes more than to others, and people come
across popular things more often. The audience is the few who lean most toward one taste; nobody is told who
they are, least of all the service: it sees interactions only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whiteroom.demo.data import DemoData

if TYPE_CHECKING:
    import numpy as np

USERS = 20_000
ITEMS = 2_000
TASTES = 16
AUDIENCE = 1_000
SEED = 250
"""Of the audience, how many the advertiser knows already."""
_MEAN_INTERACTIONS = 28
_FIRST_TIMESTAMP = 1_767_225_600  # 2026-01-01T00:00:00Z
_SECONDS = 90 * 24 * 3600


def generate(random_state: int = 1) -> DemoData:
    """The population, the audience and the advertiser's seed; the same for the same `random_state`."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(random_state)
    leaning = rng.dirichlet(np.full(TASTES, 0.25), size=USERS)
    activity = 2 + rng.poisson(rng.gamma(1.2, (_MEAN_INTERACTIONS - 2) / 1.2, size=USERS))
    users, items = _interactions(rng, leaning, activity)

    # What makes somebody one of the audience shows in the data only through noise, as in life.
    trait = leaning[:, 0] + rng.normal(0, 0.08, size=USERS)
    audience = rng.permutation(np.argsort(-trait)[:AUDIENCE])
    names = np.array([f"user-{n:05d}" for n in range(USERS)])
    order = rng.permutation(len(users))
    table = pa.table(
        {
            "user_id": pa.array(names[users[order]]),
            "item_id": pa.array(np.array([f"item-{n:04d}" for n in range(ITEMS)])[items[order]]),
            "timestamp": pa.array(rng.integers(0, _SECONDS, size=len(users)) + _FIRST_TIMESTAMP),
        }
    )
    return DemoData(
        interactions=table,
        users=USERS,
        items=ITEMS,
        seed=names[audience[:SEED]].tolist(),
        truth=frozenset(names[audience[SEED:]].tolist()),
        truth_is="the rest of the true audience",
        about=(
            f"{USERS:,} people with latent tastes, {ITEMS:,} items, {table.num_rows:,} interactions in 90 days",
            f"{AUDIENCE:,} of them make up the true audience; the advertiser knows {SEED} of these",
        ),
    )


def _interactions(rng: np.random.Generator, leaning: np.ndarray, activity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Users and items (integers, aligned), one pair for each interaction: a taste is drawn, then an item of it."""
    import numpy as np

    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.7
    appeal = rng.dirichlet(np.full(TASTES, 0.1), size=ITEMS).T * rng.permutation(popularity)
    appeal /= appeal.sum(axis=1, keepdims=True)
    users = np.repeat(np.arange(USERS), activity)
    # Inverse transform sampling, over all interactions at once.
    tastes = (rng.random((len(users), 1)) > leaning.cumsum(axis=1)[users]).sum(axis=1).clip(max=TASTES - 1)
    items = np.empty(len(users), dtype=np.int64)
    for taste in range(TASTES):
        mine = tastes == taste
        items[mine] = np.searchsorted(appeal[taste].cumsum(), rng.random(mine.sum())).clip(max=ITEMS - 1)
    return users, items
