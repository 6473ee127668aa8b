"""What an audience is worth: recall of hidden seed users, and relevance by audience size.

Both come from the same left-out seed users: each is scored by a fit on the others, and what counts is its position
among the users that are not seed. docs/lookalike.md has the derivation; `privacy` makes the figures that may be told
to somebody who must not learn of single users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

SEEDS_PER_CELL = 10
"""Least number of left-out seed users from which a density is estimated."""
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


@dataclass(frozen=True)
class Figures:
    """What is told of a seed.

    Attributes
    ----------
    matched : seed users in the model: their number, or an estimate of it where the figures are noisy.
    recall : share of seed users found in the top `top` of the ranking when left out, in [0, 1]; a random ranking
        gives `top`. NaN when fewer than two seed ids matched.
    curve : relevance along the ranking; None when fewer than two seed ids matched.
    """

    matched: int
    recall: float
    top: float
    curve: Relevance | None


@dataclass(frozen=True)
class LeftOut:
    """Where each seed user came when it was not in the seed.

    Attributes
    ----------
    found : float64, for each seed user: its chance, over the order of ties, to be in the top `top`.
    position : float64 in (0, 1], for each seed user: the share of the ranking up to it, in one order of the ties.
    """

    found: np.ndarray
    position: np.ndarray
    top: float


def left_out_users(
    rows: np.ndarray, first: np.ndarray, last: np.ndarray, n: int, *, top: float, random_state: int
) -> LeftOut:
    """Where the seed users of these rows came: each shares its score with those at positions first+1 .. last of n.

    The order of a user's ties follows from its own row, so that one user more or less moves no other (`privacy`).
    """
    drawn = first + (1 - _uniform(rows, random_state)) * (last - first)
    return LeftOut(top_share(first, last, n, top), drawn / n, top)


def figures(left_out: LeftOut) -> Figures:
    """The exact figures: recall is the mean of `found`, relevance the density of `position` along the ranking."""
    matched = len(left_out.found)
    if matched < 2:
        return Figures(matched, float("nan"), left_out.top, None)
    return Figures(matched, float(left_out.found.mean()), left_out.top, relevance_curve(left_out.position))


def _uniform(rows: np.ndarray, random_state: int) -> np.ndarray:
    """A number in [0, 1) for each row, the same whatever other rows there are (splitmix64: Steele et al. 2014)."""
    with np.errstate(over="ignore"):  # the multiplications are modulo 2^64
        golden = np.uint64(0x9E3779B97F4A7C15)
        z = np.asarray(rows, np.uint64) + golden * np.uint64((random_state + 1) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(11), np.float64) / 2**53


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
    """The chance of each user to be among the first top n of n, ties in random order; of a fraction, that chance."""
    return np.asarray(np.clip((top * n - first) / (last - first), 0, 1))


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
    return density_curve(edges, np.diff(ends, prepend=0) / m)


def density_curve(edges: np.ndarray, seed_mass: np.ndarray) -> Relevance:
    """The isotonic 2 p - 1 over cells.

    Parameters
    ----------
    edges : ascending from 0 to 1, the ends of the cells. seed_mass : the share of the seed in each cell.
    """
    all_mass = np.maximum(np.diff(edges), 1e-12)
    fitted = isotonic_regression(seed_mass / (seed_mass + all_mass), weights=seed_mass + all_mass, increasing=False)
    starts = np.asarray(fitted.blocks[:-1], dtype=np.int64)
    stops = np.asarray(fitted.blocks[1:], dtype=np.int64)
    return Relevance(share=(edges[starts] + edges[stops]) / 2, value=2 * np.asarray(fitted.x)[starts] - 1)
