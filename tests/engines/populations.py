"""Small populations whose truth is known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from whiteroom.engines.lookalike import Lookalike


def tribes(
    users: int = 1200, items: int = 300, tribes: int = 6, per_user: int = 15, state: int = 0
) -> tuple[pa.Table, np.ndarray]:
    """(interactions, tribe of each user): half of what a user does is within its tribe's share of the items.

    User ids are "u0", "u1", ...; the number is the index into the tribes.
    """
    rng = np.random.default_rng(state)
    tribe = rng.integers(0, tribes, users)
    user = np.repeat(np.arange(users), per_user)
    anything = rng.integers(0, items, len(user))
    own = rng.integers(0, items // tribes, len(user)) * tribes + tribe[user]
    item = np.where(rng.random(len(user)) < 0.5, own, anything)
    return pa.table({"user_id": [f"u{u}" for u in user], "item_id": item}), tribe


def noise(users: int = 800, items: int = 200, per_user: int = 10, state: int = 0, **by_user: np.ndarray) -> pa.Table:
    """Interactions that tell nothing, and columns that repeat a value for each user. User ids are 0, 1, ..."""
    rng = np.random.default_rng(state)
    user = np.repeat(np.arange(users), per_user)
    columns = {name: pa.array(values).take(pa.array(user)) for name, values in by_user.items()}
    return pa.table({"user_id": user, "item_id": rng.integers(0, items, len(user)), **columns})


def names(rows: np.ndarray) -> list[str]:
    return [f"u{row}" for row in rows]


def small(**parameters: object) -> Lookalike:
    """An unfitted model that is quick to fit; everything that is tested holds for it as for the default."""
    return Lookalike(**({"threads": 1} | parameters))  # type: ignore[arg-type]


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a user of the truth scores above one outside it; half for ties."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    inside = int(truth.sum())
    return float((ranks[truth].sum() - inside * (inside + 1) / 2) / (inside * (len(scores) - inside)))
