"""Figures about a seed that may be told to its provider, who must not learn from them of single users.

One noisy release for each seed and model: how many seed users the model knows, and how many of them come into a few
fixed parts of the ranking when left out. Recall, relevance, the check of the least number of matches and the check
that enough users are left outside the seed are all made from these few noisy numbers and from nothing else.

What is proved, for two runs of one model whose matched seeds differ by one user who is there or not:

- The matched count is released with (epsilon / 3, DELTA)-differential privacy, and never exceeds the truth.
- The parts of the ranking are released with a loss of at most `loss(...)`. The user's own place in them loses at
  most half of 2/3 epsilon. That the user, as part of the seed, also moves the places of others
  has no useful bound at 25 users: it was measured, and the scale is set so that 99 % of real neighbours have a loss
  of at most 2/3 epsilon. For those the advantage of anybody who tells the two runs apart is at most
  tanh(epsilon / 2) + DELTA.

Many jobs add up: k different seeds that hold the same user cost k epsilon. docs/lookalike-privacy.md has the attacks
and figures, docs/adr/0013-noise-on-metrics.md the reasons.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whiteroom.engines.lookalike.metrics import SEEDS_PER_CELL, Figures, LeftOut, density_curve

KEY_BYTES = 32
DELTA = 1e-5
"""The chance that the matched count, which must not exceed the truth, gives one user away."""
UNITS = 64
"""A user in a part of the ranking counts as so many units: parts have soft edges, noise is whole numbers."""
SOFTNESS = 0.25
"""Half the width of a soft edge, relative to the edge (or to what lies beyond it, if that is less)."""
CELL_SOFTNESS = 0.5
CELL_NOISE = 2
"""The parts within the top are noisier than the top itself by this factor: recall needs the latter only."""
FINE_FROM = (100, 200)
"""From so many matched users on the top is divided; and from so many over epsilon."""


@dataclass(frozen=True)
class Cells:
    """Into which parts a ranking is cut.

    Attributes
    ----------
    within : ends of the parts within the top, as shares of it; the last part ends where the top ends.
    calibrated : users, the scale of the noise at a loss of 1: what one seed user more or less changes in all counts
        (parts within the top count 1 / CELL_NOISE), for 99 % of real neighbours (`python -m benchmarks.privacy`).
    """

    within: tuple[float, ...]
    calibrated: Fraction

    def counts(self, left_out: LeftOut) -> list[int]:
        """In UNITS: users in the top, then in each part within it but the last. Edges are soft (see SOFTNESS)."""
        top = left_out.top
        up_to = [_soft(left_out.position, share * top, CELL_SOFTNESS) for share in self.within]
        return [_soft(left_out.position, top, SOFTNESS), *np.diff(up_to, prepend=0).tolist()]

    def scales(self, epsilon: Fraction) -> list[Fraction]:
        """Of the noise of each of `counts`, in UNITS."""
        scale = UNITS * self.calibrated / epsilon
        return [scale, *[CELL_NOISE * scale for _ in self.within]]


COARSE = Cells((), Fraction(5, 2))
FINE = Cells((0.1, 0.25, 0.5), Fraction(3))


def cells_for(matched: int, epsilon: Fraction | float) -> Cells:
    """Few parts where the noise would drown many."""
    least, loud = FINE_FROM
    return FINE if matched >= max(least, loud / epsilon) else COARSE


def _soft(position: np.ndarray, edge: float, softness: float) -> int:
    """Users before the edge, in UNITS: around it they count in part, so that a small move changes the sum little."""
    half = softness * min(edge, 1 - edge)
    before = np.clip((edge + half - position) / (2 * half), 0, 1) if half > 0 else position <= edge
    return int(np.rint(UNITS * before).sum())


# --- the noise -----------------------------------------------------------------------------------------


class Draws:
    """Random whole numbers that follow from a secret key and a question: the same question, the same numbers.

    The bytes are HMAC-SHA256 of a counter, which nobody without the key can tell from random ones.
    """

    def __init__(self, key: bytes, question: bytes) -> None:
        self._key = hmac.digest(key, question, "sha256")
        self._blocks = 0
        self._bytes = b""

    def below(self, n: int) -> int:
        """Uniform in 0 .. n - 1."""
        bits = (n - 1).bit_length()
        length = -(-bits // 8)
        while True:
            value = int.from_bytes(self._take(length), "big") & ((1 << bits) - 1)
            if value < n:
                return value

    def happens(self, chance: Fraction) -> bool:
        """True with this chance."""
        return self.below(chance.denominator) < chance.numerator

    def decays(self, exponent: Fraction) -> bool:
        """True with the chance exp(-exponent), exponent in [0, 1] (Canonne, Kamath, Steinke 2020, algorithm 1)."""
        k = 1
        while self.happens(exponent / k):
            k += 1
        return k % 2 == 1

    def laplace(self, scale: Fraction) -> int:
        """The whole number k with chance proportional to exp(-|k| / scale), exactly (the same, algorithm 2)."""
        s, t = scale.denominator, scale.numerator
        while True:
            remainder = self.below(t)
            if not self.decays(Fraction(remainder, t)):
                continue
            whole = 0
            while self.decays(Fraction(1)):
                whole += 1
            size = (remainder + t * whole) // s
            negative = self.below(2) == 1
            if not (negative and size == 0):
                return -size if negative else size

    def _take(self, length: int) -> bytes:
        while len(self._bytes) < length:
            self._bytes += hmac.digest(self._key, self._blocks.to_bytes(8, "big"), "sha256")
            self._blocks += 1
        taken, self._bytes = self._bytes[:length], self._bytes[length:]
        return taken


@dataclass(frozen=True)
class Count:
    """A number of matched users as it may be acted on: `at_least` <= the truth <= `at_most`, and `about` the truth."""

    at_least: int
    about: int
    at_most: int


@dataclass(frozen=True)
class Noise:
    """The noise of one seed at one model.

    It follows from the ids as they were submitted, matched or not. If it followed from the matched users, a seed with
    one id added that the model does not know would get the same answer, and equal answers would tell that it is
    unknown.
    """

    epsilon: Fraction
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, key: bytes, seed: pa.Array, epsilon: float) -> Noise:
        """
        Parameters
        ----------
        key : KEY_BYTES secret random bytes that were made with the model. seed : the distinct ids, large_string.
        epsilon : privacy loss of all that is told of the seed: smaller is noisier.

        Raises
        ------
        ValueError : epsilon is not positive, or the key is too short to be secret.
        """
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon must be a positive number, not {epsilon}.")
        if len(key) < KEY_BYTES:
            raise ValueError(f"The noise's key has {len(key)} bytes, not {KEY_BYTES}. Train the model again.")
        ids = pc.take(seed, pc.array_sort_indices(seed))
        lengths = pc.binary_length(ids).to_numpy(zero_copy_only=False).astype("<i8")
        digest = hashlib.sha256(len(ids).to_bytes(8, "big") + lengths.tobytes())
        for one in ids:
            digest.update(one.as_py().encode())
        return cls(Fraction(str(epsilon)), hmac.digest(key, digest.digest(), "sha256"))

    def matched(self, count: int) -> Count:
        """The noisy number of matched users: discrete Laplace noise of scale 3 / epsilon, cut off at +-`slack`."""
        scale = 3 / self.epsilon
        slack = self.slack
        draws = self._draws("matched", [count], [scale])
        while abs(error := draws.laplace(scale)) > slack:
            pass
        return Count(count + error - slack, count + error, count + error + slack)

    @property
    def slack(self) -> int:
        """A seed that matches 2 slack more users than are asked for always passes."""
        alpha = math.exp(-float(self.epsilon) / 3)
        # DELTA is the chance of the outermost value, which only the larger of two neighbouring counts can give.
        return max(1, math.ceil(math.log((1 - alpha) / (1 + alpha) / DELTA) / -math.log(alpha)))

    def figures(self, left_out: LeftOut) -> Figures:
        """Recall and relevance from noisy counts, clipped to their ranges and rounded."""
        about = max(1, self.matched(len(left_out.position)).about)
        cells = cells_for(about, self.epsilon)  # by a noisy number, which is told anyway
        counts, scales = cells.counts(left_out), cells.scales(self.epsilon * 2 / 3)
        draws = self._draws("figures", counts, scales)
        top, *within = [(n + draws.laplace(scale)) / UNITS for n, scale in zip(counts, scales, strict=True)]
        spread = [float(scale) * math.sqrt(2) / UNITS for scale in scales]
        edges = [0.0, *[share * left_out.top for share in cells.within], left_out.top, 1.0]
        users = [*within, top - sum(within), about - top]
        errors = [*spread[1:], math.hypot(*spread), math.hypot(spread[0], 3 * math.sqrt(2) / float(self.epsilon))]
        if left_out.top == 1:
            edges, users, errors = edges[:-1], users[:-1], errors[:-1]
        curve = density_curve(*_told(np.array(edges), np.array(users) / about, np.array(errors) / about, about))
        value = np.round(curve.value, 3)
        recall = round(min(max(top / about, 0.0), 1.0), 3)
        return Figures(about, recall, left_out.top, type(curve)(curve.share, value))

    def _draws(self, purpose: str, counts: Sequence[int], scales: Sequence[Fraction]) -> Draws:
        # The counts are part of the question, so that no change of cells, scale or engine can reuse noise on other
        # counts: their difference would be told without any.
        question = " ".join([purpose, *map(str, counts), *map(str, scales)])
        return Draws(self.secret, question.encode())


def _told(edges: np.ndarray, mass: np.ndarray, error: np.ndarray, about: int) -> tuple[np.ndarray, np.ndarray]:
    """(edges, share of the seed) of cells wide enough to say something, from the best users on.

    A cell is wide enough when it holds SEEDS_PER_CELL seed users more than twice the standard error of its noise, or
    would hold them if the seed were no denser there than all users.
    """
    ends, kept, start, sum_, variance = [0.0], [], 0.0, 0.0, 0.0
    for end, share, one in zip(edges[1:], mass, error, strict=True):
        sum_, variance = sum_ + share, variance + one**2
        if max(sum_, end - start) >= SEEDS_PER_CELL / about + 2 * math.sqrt(variance):
            ends.append(end)
            kept.append(sum_)
            start, sum_, variance = end, 0.0, 0.0
    if ends[-1] < 1:  # what is left is too narrow by itself
        if kept:
            ends[-1], kept[-1] = 1.0, kept[-1] + sum_
        else:
            ends, kept = [0.0, 1.0], [sum_]
    kept_mass = np.maximum(kept, 0)
    return np.array(ends), kept_mass / max(kept_mass.sum(), 1e-12)


def loss(one: LeftOut, other: LeftOut, epsilon: float, cells: Cells | None = None) -> float:
    """How much likelier the figures of one seed can be than those of another, at most: the logarithm of that factor.

    Exact for the parts of the ranking; the matched count adds epsilon / 3 for each user by which the seeds differ.
    """
    cells = cells or cells_for(min(len(one.position), len(other.position)), epsilon)
    scales = cells.scales(Fraction(str(epsilon)) * 2 / 3)
    changes = zip(cells.counts(one), cells.counts(other), scales, strict=True)
    return float(sum(abs(a - b) / scale for a, b, scale in changes)) + epsilon / 3 * abs(
        len(one.position) - len(other.position)
    )
