"""What an audience is worth: recall of hidden seed users, and relevance by audience size.

Both come from the same hidden seed users: the seed is cut into folds, each is scored by a fit on the others, and
what counts is its position among all users that the fit did not see as seed. docs/lookalike.md has the derivation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

SEEDS_PER_CELL = 10
"""Least number of hidden seed users from which a density is estimated."""
MAX_CELLS = 20


@dataclass(frozen=True)
class Relevance:
    """Relevance as a function of the share of the ranking that an audience takes.

    Attributes
    ----------
    share : ascending, in (0, 1): the middles of the steps of the isotonic fit. value : non-increasing, in [-1, 1].
    """

    share: np.ndarray
    value: np.ndarray

    def at(self, shares: np.ndarray) -> np.ndarray:
        """Relevance of the user at each share of the ranking: linear between the middles, flat outside them."""
        return np.asarray(np.interp(shares, self.share, self.value))


def fold_rows(seed: np.ndarray, folds: int, random_state: int) -> list[np.ndarray]:
    """Cut the rows of a seed into `folds` parts of (nearly) equal size at random: those to hide, fold by fold."""
    shuffled = np.random.default_rng(random_state).permutation(np.sort(seed))
    return [np.sort(part) for part in np.array_split(shuffled, min(folds, len(seed)))]


def hidden_positions(scores: np.ndarray, fitted: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Where hidden seed users come in the ranking of everybody but the fitted seed users.

    Returns
    -------
    (first, last, n): of n ranked users, each hidden one shares its score with those at positions first+1 .. last.
    """
    pool = np.sort(np.delete(scores, fitted))
    first = len(pool) - np.searchsorted(pool, scores[hidden], side="right")
    last = len(pool) - np.searchsorted(pool, scores[hidden], side="left")
    return first, last, len(pool)


def top_share(first: np.ndarray, last: np.ndarray, n: int, top: float) -> np.ndarray:
    """The chance of each user to be among the first round(top n) of n, ties in random order."""
    size = max(1, round(top * n))
    return np.asarray(np.clip((size - first) / (last - first), 0, 1))


def relevance_curve(positions: np.ndarray) -> Relevance:
    """The isotonic density of hidden seed users along the ranking, as 2 p - 1 with p = f_seed / (f_seed + f_all).

    Parameters
    ----------
    positions : for each hidden seed user, the share of the ranking up to it, in (0, 1). Along this axis f_all = 1.

    The axis is cut into cells of equally many hidden seed users (at least SEEDS_PER_CELL where there are so many,
    at most MAX_CELLS cells); p of a cell is fitted non-increasing, weights f_seed + f_all (pool adjacent violators).
    """
    m = len(positions)
    positions = np.sort(positions)
    cells = int(np.clip(m // SEEDS_PER_CELL, 1, MAX_CELLS))
    ends = np.cumsum([len(part) for part in np.array_split(np.arange(m), cells)])
    inner = (positions[ends[:-1] - 1] + positions[ends[:-1]]) / 2
    edges = np.concatenate([[0.0], inner, [1.0]])
    seed_mass = np.diff(ends, prepend=0) / m
    all_mass = np.maximum(np.diff(edges), 1e-12)
    fitted = isotonic_regression(seed_mass / (seed_mass + all_mass), weights=seed_mass + all_mass, increasing=False)
    starts = np.asarray(fitted.blocks[:-1], dtype=np.int64)
    stops = np.asarray(fitted.blocks[1:], dtype=np.int64)
    return Relevance(share=(edges[starts] + edges[stops]) / 2, value=2 * np.asarray(fitted.x)[starts] - 1)
