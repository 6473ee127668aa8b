"""What a model learned, for the owner of the data: coverage, popular items, and quality on probe audiences.

A probe audience is the users who have one item. Their rows are encoded again without it, a part of them is the seed,
and the rest are looked for in the ranking. So the report says how well the model finds audiences that the owner's own
data define, before anybody brings a seed. Not for the provider of a seed: it names items and counts their users.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from scipy.special import stdtrit

from whiteroom.engines.lookalike import storage
from whiteroom.engines.lookalike.embedding import Embedding, one_blas_thread
from whiteroom.engines.lookalike.errors import ModelFileError
from whiteroom.engines.lookalike.heads import fit_seed
from whiteroom.engines.lookalike.matrix import Population, Rows
from whiteroom.engines.lookalike.space import UserSpace

TOPS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Audience sizes at which a probe's recall is told, as shares of the users outside the seed."""
RECALL_AT = 0.2
POPULAR_ITEMS = 20
LEAST_USERS = 50
MOST_SHARE = 0.15
"""A probe's item has so many users in the learning sample: at least so many, at most such a share of it."""
PROBE_USERS = 200
"""Users of a probe, at most: half of them, PROBE_USERS / 2 at most, are the seed."""
CHOOSING = 1_000
"""Users of the background by whom a probe's penalty is chosen: fewer than for a real seed, to be quick."""
VARIANCE = 0.9


@dataclass(frozen=True)
class Probe:
    """How well the users of one item are found.

    Attributes
    ----------
    users : of the learning sample who have the item and another one. seed, hidden : how many of them are each.
    found : for each of TOPS, the share of the hidden users within that top of all users outside the seed, in [0, 1];
        a random ranking gives the top itself.
    """

    item: str
    users: int
    seed: int
    hidden: int
    found: tuple[float, ...]

    @property
    def recall(self) -> float:
        return self.found[TOPS.index(RECALL_AT)]


@dataclass(frozen=True)
class Report:
    """What a model learned.

    Attributes
    ----------
    n_active_users : users with two or more interactions, repeats counted.
    n_learning_users : the sample that the model learned from. n_learned_items : the items that at least two users of
        it have; only they make a user's vector.
    learned_share : of all interactions, those with learned items.
    n_blank_users : users who have no learned item: nothing but their features, if there are any, tells them apart.
    popular : (item id, users who have it), most users first.
    dimensions : of a user vector. n_main_axes : principal axes that carry VARIANCE of the users' variance.
    probes : by number of users, ascending; empty unless the estimator was asked for them.
    """

    n_users: int
    n_active_users: int
    n_items: int
    n_interactions: int
    n_learning_users: int
    n_learned_items: int
    learned_share: float
    n_blank_users: int
    popular: tuple[tuple[str, int], ...]
    dimensions: int
    n_main_axes: int
    probes: tuple[Probe, ...] = ()

    @property
    def recall(self) -> float:
        """Recall in the top RECALL_AT, mean over the probes; NaN without any."""
        return float(self.curve[TOPS.index(RECALL_AT)])

    @property
    def interval(self) -> tuple[float, float]:
        """Where the mean of `recall` over all items that a probe may be about lies with 95 % confidence.

        Student's t over the probes, in [0, 1]; NaN for fewer than two. It holds what varies between items and what
        the draw of the seed and the hidden users adds.
        """
        low, high = self.band
        at = TOPS.index(RECALL_AT)
        return float(low[at]), float(high[at])

    @property
    def curve(self) -> np.ndarray:
        """float64, for each of TOPS: recall, mean over the probes."""
        return self._found().mean(axis=0) if self.probes else np.full(len(TOPS), np.nan)

    @property
    def band(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), float64, for each of TOPS: `interval` along the curve."""
        n = len(self.probes)
        if n < 2:
            return np.full(len(TOPS), np.nan), np.full(len(TOPS), np.nan)
        wide = stdtrit(n - 1, 0.975) * self._found().std(axis=0, ddof=1) / np.sqrt(n)
        return np.clip(self.curve - wide, 0, 1), np.clip(self.curve + wide, 0, 1)

    def _found(self) -> np.ndarray:
        return np.array([probe.found for probe in self.probes])

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes the same report of."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """
        Raises
        ------
        KeyError, TypeError, ValueError : the document is no report.
        """
        probes = tuple(Probe(**{**one, "found": tuple(map(float, one["found"]))}) for one in document["probes"])
        popular = tuple((str(item), int(users)) for item, users in document["popular"])
        if any(len(probe.found) != len(TOPS) for probe in probes):
            raise ValueError("a probe has not one share for each audience size")
        return cls(**{**document, "probes": probes, "popular": popular})


def read_report(directory: str | Path, *, open: storage.Opener | None = None) -> Report:  # noqa: A002
    """The report of a saved model, without loading the model.

    Raises
    ------
    ModelFileError : the directory holds no model of this format.
    """
    try:
        return Report.from_json(storage.read_facts(Path(directory), open or storage.plain)["report"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{directory} holds no whole model: {error}") from error


def make_report(
    population: Population,
    item_ids: pa.Array,
    X: sp.csr_matrix,
    F: sp.csr_matrix,
    embedding: Embedding,
    space: UserSpace,
    *,
    probes: int,
    random_state: int,
    threads: int = 0,
) -> Report:
    """The report of a model, in one pass over the population.

    Parameters
    ----------
    item_ids : of the columns of `population.X`.
    X, F : the rows of the learning sample, as `learn_embedding` took them.
    probes : how many probe audiences, at most.
    threads : changes no result.
    """
    users, learned_share, blank = coverage_of(population.X, embedding.columns)
    most = np.argsort(-users, kind="stable")[:POPULAR_ITEMS]
    variance = np.cumsum(np.sort(space.spectrum)[::-1])
    return Report(
        n_users=population.X.n_users,
        n_active_users=population.n_active_users,
        n_items=population.X.n_items,
        n_interactions=population.n_interactions,
        n_learning_users=X.shape[0],
        n_learned_items=len(embedding.columns),
        learned_share=learned_share,
        n_blank_users=blank,
        popular=tuple(zip(item_ids.take(pa.array(most)).to_pylist(), users[most].tolist(), strict=True)),
        dimensions=embedding.dimensions,
        n_main_axes=int(np.searchsorted(variance, VARIANCE * variance[-1]) + 1) if variance[-1] > 0 else 0,
        probes=probe_audiences(population.X, item_ids, X, F, embedding, space, probes, random_state, threads),
    )


def coverage_of(rows: Rows, columns: np.ndarray) -> tuple[np.ndarray, float, int]:
    """(users of each item, share of the interactions that are with `columns`, users without any of them)."""
    learned = np.zeros(rows.n_items, bool)
    learned[columns] = True
    users = np.zeros(rows.n_items, np.int64)
    interactions = covered = blank = 0
    for start, stop in rows.blocks():
        first, last = rows.indptr[start], rows.indptr[stop]
        items, counts = rows.indices[first:last], rows.counts[first:last]
        known = learned[items]
        np.add.at(users, items, 1)
        interactions += int(counts.sum(dtype=np.int64))
        covered += int(counts[known].sum(dtype=np.int64))
        # Every user has an entry, so that no user's range is empty.
        blank += int((np.add.reduceat(known, rows.indptr[start:stop] - first, dtype=np.int64) == 0).sum())
    return users, covered / interactions, blank


def probe_audiences(
    population: Rows,
    item_ids: pa.Array,
    X: sp.csr_matrix,
    F: sp.csr_matrix,
    embedding: Embedding,
    space: UserSpace,
    count: int,
    random_state: int,
    threads: int,
) -> tuple[Probe, ...]:
    """Find the users of `count` items, drawn one from each of as many strata of the items by number of users.

    What was learned of the other items has seen who has the item asked about; docs/lookalike.md says how much this
    flatters.
    """
    several = np.flatnonzero(np.diff(X.indptr) >= 2)  # without its only item nothing is left of a user
    by_item = X[several].tocsc()
    users = np.diff(by_item.indptr)
    fit = np.flatnonzero((users >= LEAST_USERS) & (users <= MOST_SHARE * X.shape[0]))
    if not count or not len(fit):
        return ()
    fit = fit[np.argsort(users[fit], kind="stable")]
    ascending = np.argsort(space.background_rows)
    owners = population.take(space.background_rows[ascending]).tocsc()
    rng = np.random.default_rng(random_state)
    probes = []
    for stratum in np.array_split(fit, min(count, len(fit))):
        item = int(rng.choice(stratum))
        members = several[rng.permutation(_column(by_item, item))[:PROBE_USERS]]
        vectors = embedding.encode(_without(X[members], item), F[members], threads=threads)
        outside = np.ones(len(ascending), bool)
        outside[ascending[_column(owners, item)]] = False
        seed = len(members) // 2
        found = _found(space, vectors, space.background[outside], seed, int(users[item]), X.shape[0])
        probes.append(Probe(item_ids[item].as_py(), int(users[item]), seed, len(members) - seed, found))
    return tuple(probes)


def _column(matrix: sp.csc_matrix, item: int) -> np.ndarray:
    return np.asarray(matrix.indices[matrix.indptr[item] : matrix.indptr[item + 1]])


def _without(rows: sp.csr_matrix, item: int) -> sp.csr_matrix:
    rows.data[rows.indices == item] = 0
    rows.eliminate_zeros()
    return rows


def _found(
    space: UserSpace, vectors: np.ndarray, outsiders: np.ndarray, n_seed: int, n_members: int, n_users: int
) -> tuple[float, ...]:
    """For each of TOPS, the share of the members after the first `n_seed` that a fit on these finds.

    Parameters
    ----------
    vectors : float32, users x dimensions: members. outsiders : float32, users x axes: users that are none.
    n_members, n_users : how many of each there are, whom those above stand for.
    """
    plain = np.ones(vectors.shape[1], np.float32)
    nowhere = np.full(len(outsiders), -1)
    own = replace(space, vectors=vectors, scale=plain, background=outsiders, background_rows=nowhere, choosing=CHOOSING)
    with one_blas_thread():
        fit = fit_seed(own, np.arange(n_seed))
        weights = (fit.filter * fit.total).astype(np.float32)
        hidden = np.sort(own.principal(np.arange(n_seed, len(vectors))) @ weights)
        others = np.sort(outsiders @ weights)
    each_hidden = (n_members - n_seed) / len(hidden)
    each_other = (n_users - n_members) / len(others)

    def ranked(side: Any) -> np.ndarray:
        """Users that score as much as each hidden one, or more, from one side of their ties."""
        above_hidden = len(hidden) - np.searchsorted(hidden, hidden, side=side)
        above_others = len(others) - np.searchsorted(others, hidden, side=side)
        return np.asarray(each_hidden * above_hidden + each_other * above_others)

    first, last = ranked("right"), ranked("left")
    within = [np.clip((top * (n_users - n_seed) - first) / (last - first), 0, 1) for top in TOPS]
    return tuple(float(shares.mean()) for shares in within)
