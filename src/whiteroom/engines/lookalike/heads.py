"""The head: a least-squares fit of "is in the seed" over all users, its penalty chosen on the seed itself.

In the principal axes of the user vectors the fit is one number for each axis, and leaving out one seed user is a
closed form. So the penalty is chosen, and recall and relevance are measured, by leaving out every seed user in turn,
without going over the population again; only the final scores need one pass over the user vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from whiteroom.engines.lookalike.space import UserSpace

PENALTIES = (0.045, 0.09, 0.18, 0.36, 0.72, 1.44)
"""Ridge penalties, in units of the population's total variance over the square root of the seed's size."""
SHARPNESS = 0.15
"""Penalties share in the fit by exp(mean position / (SHARPNESS standard errors of a mean position))."""
EMPHASIS = 0.25
"""Seed users count from 1 - EMPHASIS (found first when left out) to 1 + EMPHASIS (found last): as in boosting, those
that the others do not explain tell more."""
EXACT_UP_TO = 128
"""In larger seeds, leaving out one user moves the population too little to matter: only the user itself is moved."""


@dataclass(frozen=True)
class SeedFit:
    """The fit of one seed of m users, in the principal axes.

    Attributes
    ----------
    seed : float32, m x axes: the seed's users. shares : float32, m: how much each counts, about 1.
    filter : float64, axes: the score of a user z is z . (filter * total). Zero where users cannot be told apart.
    """

    space: UserSpace
    rows: np.ndarray
    seed: np.ndarray
    shares: np.ndarray
    filter: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """float64, axes: the sum of the seed's users, each times its share."""
        return np.asarray((self.seed * self.shares[:, None]).sum(axis=0, dtype=np.float64))

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

        All shares count as 1 here: those of the others were chosen with the left-out user in the seed.
        """
        others = self.space.background[~np.isin(self.space.background_rows, self.rows)]
        above, level = _positions(replace(self, shares=np.ones_like(self.shares)), others)
        return above, above + level + 1, len(others) + 1


def fit_seed(space: UserSpace, rows: np.ndarray) -> SeedFit:
    """Fit the seed of these rows (ascending, without repeats, not empty).

    The ridge regression of y (1 in the seed, 0 outside) on the centred vectors, `(Z'Z + penalty I)^-1 Z'y`, for each
    of PENALTIES; each one's scores are standardised and weighted by how well it finds seed users that are left out.
    Then each seed user counts more the later it was found (see EMPHASIS).
    """
    seed = space.principal(rows)
    m, n = len(rows), space.n_users
    shares = np.ones(m, np.float32)
    fit = SeedFit(space, rows, seed, shares, np.zeros(seed.shape[1]))
    total, variance = fit.total, float(space.spectrum.sum())
    # The vectors are centred: of a seed of everybody only rounding is left.
    if m == n or variance <= 0 or not np.any(np.abs(total) > 1e-5 * np.sqrt(m * variance)):
        return fit
    filters = 1 / (space.spectrum + np.array(PENALTIES)[:, None] * variance / np.sqrt(m))
    filters /= np.sqrt((space.spectrum * np.square(filters * total)).sum(axis=1, keepdims=True))
    if m > 1:
        others = space.background[: space.choosing]
        found = np.array([_outranked(replace(fit, filter=one), others) for one in filters])
        standard_error = np.sqrt(1 / 12 / m)
        mean = found.mean(axis=1)
        votes = np.exp((mean - mean.max()) / (SHARPNESS * standard_error))
        worst_first = np.argsort(votes @ found, kind="stable")
        shares[worst_first] = 1 + EMPHASIS * (1 - (2 * np.arange(m) + 1) / m)
    else:
        votes = np.ones(len(filters))
    fit = replace(fit, shares=shares, filter=votes @ filters)
    spread = np.sqrt((space.spectrum * np.square(fit.filter * fit.total)).sum())
    return replace(fit, filter=fit.filter / spread)


def _outranked(fit: SeedFit, others: np.ndarray) -> np.ndarray:
    """For each seed user, left out: the share of `others` that it outranks; ties count half."""
    above, level = _positions(fit, others)
    return np.asarray(1 - (above + 0.5 * level) / len(others))


def _positions(fit: SeedFit, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each left-out seed user, how many of `others` score higher, and how many the same."""
    weights = (fit.filter * fit.total).astype(np.float32)
    # What leaving each one out takes from the weights.
    moved = fit.seed * fit.filter.astype(np.float32) * fit.shares[:, None]
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
