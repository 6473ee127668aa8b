"""The users of a model ranked for one seed, with the numbers that say how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from whiteroom.engines.lookalike.metrics import Figures, Relevance


@dataclass(frozen=True)
class Ranking:
    """All users of the model, best first.

    Attributes
    ----------
    order : row numbers of all users: first the `matched` seed users, then everybody else, each part best first.
    scores : float32, by row number. Comparable within this ranking only.
    matched : seed ids that are users of the model; they are order[:matched].
    unmatched : distinct seed ids that are not.
    figures : recall and relevance, exact or noisy (see `metrics.Figures`).
    """

    order: np.ndarray
    scores: np.ndarray
    matched: int
    unmatched: int
    figures: Figures
    user_ids: pa.Array = field(repr=False)

    @property
    def recall(self) -> float:
        """Share of seed users found in the top `top` when left out, in [0, 1]; a random ranking gives `top`."""
        return self.figures.recall

    @property
    def top(self) -> float:
        """The share of the ranking that recall looks at."""
        return self.figures.top

    @property
    def curve(self) -> Relevance | None:
        """Relevance along the ranking; None when fewer than two seed ids matched."""
        return self.figures.curve

    def available(self, *, include_seed: bool = False) -> int:
        """How many users an audience can have."""
        return len(self.order) - (0 if include_seed else self.matched)

    def audience(self, size: int, *, include_seed: bool = False) -> pa.Array:
        """The ids of the best `size` users (large_string). The seed users are left out, or else come first.

        Raises
        ------
        ValueError : `size` is below 1 or above `available`.
        """
        self._check(np.array([size]), include_seed)
        start = 0 if include_seed else self.matched
        return self.user_ids.take(pa.array(self.order[start : start + size]))

    def relevance(self, sizes: Sequence[int] | np.ndarray, *, include_seed: bool = False) -> np.ndarray:
        """Relevance of the last user of audiences of these sizes: float64 in [-1, 1], non-increasing in the size.

        Raises
        ------
        ValueError : a size is below 1 or above `available`, or fewer than two seed ids matched.
        """
        sizes = np.asarray(sizes, dtype=np.int64)
        self._check(sizes, include_seed)
        if self.curve is None:
            raise ValueError("Relevance needs at least two matched seed ids.")
        # Noisy figures may not be told by the exact number of matches either.
        matched = self.figures.matched
        others = max(1, len(self.order) - matched)
        beyond_seed = np.maximum(sizes - (matched if include_seed else 0), 0)
        return self.curve.at(np.maximum(beyond_seed - 0.5, 0) / others)

    def _check(self, sizes: np.ndarray, include_seed: bool) -> None:
        available = self.available(include_seed=include_seed)
        if len(sizes) and (sizes.min() < 1 or sizes.max() > available):
            beside = "" if include_seed else " beside its seed"
            raise ValueError(
                f"An audience has 1 to {available} users here (the model's users{beside}), not {sizes.tolist()}."
            )
