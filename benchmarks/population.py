"""A large made-up population with planted audiences, written as Parquet files of interactions.

Users belong to a few communities each, more or less; communities come in groups. Every community ranks all items its
own way: the common order of popularity, moved by its group and by itself. A fifth of what users do follows the
common order alone. Items are taken by a Zipf-Mandelbrot law over the ranks, and users' activity is log-normal.
An audience is the 2 % of users who belong most to some communities, plus chance. Rows come in the order of time, so
that every file holds rows of nearly all users. All is drawn from one number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COMMUNITIES = 64
GROUPS = 16
PREFERENCE = 1.2
"""Standard deviation, for a group and for a community, by which the log popularity of its items is moved."""
OF_A_USER = 4
"""Communities that a user belongs to."""
COMMON_SHARE = 0.2
"""Share of interactions that follow no community."""
ZIPF_OFFSET = 20
"""An item of rank r is taken with a probability proportional to 1 / (r + ZIPF_OFFSET)."""
AUDIENCE_SHARE = 0.02
ROWS_AT_ONCE = 4_000_000
"""About the rows of one file."""
START = 1_700_000_000
DAY = 86_400


@dataclass(frozen=True)
class Population:
    """`interactions` is the expected number of rows."""

    users: int
    items: int
    interactions: int
    state: int = 0

    @cached_property
    def user_ids(self) -> pa.Array:
        """By user number; numbers and ids are in no common order."""
        return _names("user", self._rng("user ids").permutation(self.users))

    @cached_property
    def communities(self) -> np.ndarray:
        """users x OF_A_USER."""
        share = 1 / np.arange(10, 10 + COMMUNITIES)
        return self._rng("communities").choice(COMMUNITIES, (self.users, OF_A_USER), p=share / share.sum())

    @cached_property
    def weights(self) -> np.ndarray:
        """users x OF_A_USER, rows sum to 1: how much a user belongs to its communities."""
        drawn = self._rng("weights").standard_gamma(0.7, (self.users, OF_A_USER)) + 1e-9
        return drawn / drawn.sum(axis=1, keepdims=True)

    @cached_property
    def audiences(self) -> list[np.ndarray]:
        """The user numbers of each planted audience, in no order."""
        rng = self._rng("audiences")
        found = []
        for _ in range(8):
            affinity = np.where(rng.random(COMMUNITIES) < 0.1, rng.exponential(1, COMMUNITIES), 0)
            liking = (self.weights * affinity[self.communities]).sum(axis=1)
            liking += 0.2 * liking.std() * rng.standard_normal(self.users)
            found.append(rng.permutation(np.argsort(-liking)[: round(AUDIENCE_SHARE * self.users)]))
        return found

    def write(self, directory: Path) -> list[Path]:
        """The files of interactions (user_id, item_id, timestamp), made where they are not there yet."""
        directory.mkdir(parents=True, exist_ok=True)
        n_files = max(1, round(self.interactions / ROWS_AT_ONCE))
        paths = [directory / f"part-{i:03d}.parquet" for i in range(n_files)]
        for path, table in zip(paths, self._tables(n_files), strict=True):
            # No Arrow schema: readers see plain strings, not the dictionaries that they were written from.
            pq.write_table(table, path, store_schema=False)
        return paths

    def _tables(self, n_files: int) -> Iterator[pa.Table]:
        rng = self._rng("activity")
        activity = rng.lognormal(0, 1.1, self.users)
        activity *= (self.interactions / self.users - 1) / activity.mean() / n_files
        cumulative = np.cumsum(self.weights * (1 - COMMON_SHARE), axis=1)
        choices = np.hstack([self.communities, np.full((self.users, 1), COMMUNITIES)])
        item_ids = _names("item", self._rng("item ids").permutation(self.items))
        order = self._order()
        for file in range(n_files):
            rng = self._rng("file", file)
            counts = rng.poisson(activity) + (file == 0)  # everybody does something
            users = rng.permutation(np.repeat(np.arange(self.users, dtype=np.int32), counts))
            slot = (rng.random(len(users))[:, None] > cumulative[users]).sum(axis=1)
            rank = ZIPF_OFFSET * ((1 + self.items / ZIPF_OFFSET) ** rng.random(len(users)) - 1)
            items = order[choices[users, slot], rank.astype(np.int32)]
            times = START + DAY * file + np.arange(len(users)) * DAY // len(users)
            yield pa.table(
                {
                    "user_id": pa.DictionaryArray.from_arrays(users, self.user_ids),
                    "item_id": pa.DictionaryArray.from_arrays(items, item_ids),
                    "timestamp": times,
                }
            )

    def _order(self) -> np.ndarray:
        """(communities + 1) x items: the items of each community, most popular first; the last row is common."""
        rng = self._rng("order")
        popularity = -np.log(np.arange(self.items) + ZIPF_OFFSET)
        of_group = rng.standard_normal((GROUPS, self.items), dtype=np.float32)
        order = np.empty((COMMUNITIES + 1, self.items), np.int32)
        for c in range(COMMUNITIES):
            liked = popularity + PREFERENCE * (of_group[c % GROUPS] + rng.standard_normal(self.items))
            order[c] = np.argsort(-liked)
        order[COMMUNITIES] = np.arange(self.items)
        return order

    def _rng(self, *name: str | int) -> np.random.Generator:
        return np.random.default_rng([self.state, *"/".join(map(str, name)).encode()])


def _names(kind: str, numbers: np.ndarray) -> pa.Array:
    return pa.array([f"{kind}-{number:07d}" for number in numbers.tolist()])
