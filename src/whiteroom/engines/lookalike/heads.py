"""The head: a least-squares fit of "is in the seed" over all users, its penalty chosen on the seed itself.

In the principal axes of the user vectors the fit is one number for each axis, and leaving out one seed user is a
closed form. So the penalty is chosen, and recall and relevance are measured, by leaving out every seed user in turn,
without going over the population again; only the final scores need one pass over the user vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whiteroom.engines.lookalike.space import UserSpace

PENALTIES = (0.045, 0.09, 0.18, 0.36, 0.72, 1.44)
"""Ridge penalties, in units of the population's total variance over the square root of the seed's size."""
SHARPNESS = 0.15
"""Penalties share in the fit by exp(mean position / (SHARPNESS standard errors of a mean position))."""
EXACT_UP_TO = 128
"""In larger seeds, leaving out one user moves the population too little to matter: only the user itself is moved."""


@dataclass(frozen=True)
class SeedFit:
    """The fit of one seed of m users, in the principal axes.

    Attributes
    ----------
    seed : float32, m x axes: the seed's users. total : float64, axes: their sum.
    filter : float64, axes: the score of a user z is z . (filter * total). Zero where users cannot be told apart.
    """

    space: UserSpace
    rows: np.ndarray
    seed: np.ndarray
    total: np.ndarray
    filter: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """float32, dimensions: scores are `vectors @ weights` up to a constant; their variance over the users is 1."""
        return np.asarray(self.space.axes @ (self.filter * self.total), np.float32)

    def left_out(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Where each seed user, left out of the seed, comes among itself and the users outside the seed.

        Returns
        -------
        (first, last, n): of n ranked users, it shares its score with those at positions first+1 .. last. The users
        outside are a sample of the population where that is large.
        """
        others = self.space.background[~np.isin(self.space.background_rows, self.rows)]
        above, level = _positions(self, others)
        return above, above + level + 1, len(others) + 1


def fit_seed(space: UserSpace, rows: np.ndarray) -> SeedFit:
    """Fit the seed of these rows (ascending, without repeats, not empty).

    The ridge regression of y (1 in the seed, 0 outside) on the centred vectors, `(Z'Z + penalty I)^-1 Z'y`, for each
    of PENALTIES; each one's scores are standardised and weighted by how well it finds seed users that are left out.
    """
    seed = space.principal(rows)
    m, n = len(rows), space.n_users
    total = seed.sum(axis=0, dtype=np.float64)
    variance = float(space.spectrum.sum())
    # The vectors are centred: of a seed of everybody only rounding is left.
    if m == n or variance <= 0 or not np.any(np.abs(total) > 1e-5 * np.sqrt(m * variance)):
        return SeedFit(space, rows, seed, total, np.zeros(len(total)))
    penalties = np.array(PENALTIES)[:, None] * variance / np.sqrt(m)
    filters = 1 / (space.spectrum + penalties)
    filters /= np.sqrt((space.spectrum * np.square(filters * total)).sum(axis=1, keepdims=True))
    if m > 1:
        others = space.background[: space.choosing]
        found = np.array([_mean_position(SeedFit(space, rows, seed, total, f), others) for f in filters])
        standard_error = np.sqrt(1 / 12 / m)
        shares = np.exp((found - found.max()) / (SHARPNESS * standard_error))
    else:
        shares = np.ones(len(filters))
    mixed = (shares[:, None] * filters).sum(axis=0)
    mixed /= np.sqrt((space.spectrum * np.square(mixed * total)).sum())
    return SeedFit(space, rows, seed, total, mixed)


def _mean_position(fit: SeedFit, others: np.ndarray) -> float:
    """Share of `others` that a left-out seed user outranks, mean over the seed; ties count half."""
    above, level = _positions(fit, others)
    return float(1 - (above + 0.5 * level).mean() / len(others))


def _positions(fit: SeedFit, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each left-out seed user, how many of `others` score higher, and how many the same."""
    weights = (fit.filter * fit.total).astype(np.float32)
    moved = fit.seed * fit.filter.astype(np.float32)  # what leaving each one out takes from the weights
    own = fit.seed @ weights - np.einsum("ij,ij->i", fit.seed, moved)
    scores = others @ weights
    if len(own) <= EXACT_UP_TO:
        without = scores[:, None] - others @ moved.T
        # Equal vectors must score the same, although the two sums above round differently.
        close = np.float32(1e-5)
        higher = without > own + close
        return higher.sum(axis=0), (without >= own - close).sum(axis=0) - higher.sum(axis=0)
    scores = np.sort(scores)
    above = len(scores) - np.searchsorted(scores, own, side="right")
    return above, len(scores) - np.searchsorted(scores, own, side="left") - above
