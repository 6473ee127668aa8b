"""The estimator: fit once on interactions, then rank all users for any seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from whiteroom.engines.lookalike import storage
from whiteroom.engines.lookalike.errors import LookalikeError, ModelFileError, SeedError
from whiteroom.engines.lookalike.evidence import Evidence, learn_evidence
from whiteroom.engines.lookalike.features import feature_columns
from whiteroom.engines.lookalike.heads import score_seeds
from whiteroom.engines.lookalike.interactions import Schema, canonical_seed, read_interactions
from whiteroom.engines.lookalike.matrix import build_population
from whiteroom.engines.lookalike.metrics import (
    Relevance,
    fold_rows,
    hidden_positions,
    relevance_curve,
    top_share,
)
from whiteroom.engines.lookalike.ranking import Ranking

Progress = Callable[[float, str], None]

PARAMETERS = (
    "random_state",
    "factors",
    "iterations",
    "regularization",
    "feature_weight",
    "max_interactions",
    "max_users",
    "max_items",
)


class Lookalike:
    """Ranks the users of a population by their likeness to a seed.

    Parameters
    ----------
    random_state : starting factors, folds, order of ties. The same data and state give the same results, whatever
        the order of the rows and the number of threads.
    factors : length of a user vector.
    iterations, regularization : of alternating least squares.
    feature_weight : weight of one feature relative to a user's whole interaction row, before squaring.
    max_interactions : of more interactions a sample of users is kept, drawn by a hash of their ids.
    max_users : of more users those with the most interactions are kept.
    max_items : of more items those with the most users are kept.
    threads : threads of training; 0 takes all cores. Changes no result.

    Attributes
    ----------
    user_ids_ : large_string array, sorted; row r of every result is user_ids_[r].
    item_ids_ : large_string array, sorted: the items that count.
    feature_names_ : the feature columns that count, such as "country=France" or "age in (20, 30]".
    n_users_, n_items_, n_interactions_ : how many of each the model stands for.
    n_active_users_ : users with two or more interactions, repeats counted.
    evidence_ : user vectors and sparse rows (see `evidence.Evidence`).

    The method and its sources are in docs/lookalike.md.
    """

    user_ids_: pa.Array
    item_ids_: pa.Array
    feature_names_: list[str]
    n_users_: int
    n_items_: int
    n_interactions_: int
    n_active_users_: int
    evidence_: Evidence

    def __init__(
        self,
        *,
        random_state: int = 0,
        factors: int = 64,
        iterations: int = 12,
        regularization: float = 0.05,
        feature_weight: float = 0.3,
        max_interactions: int | None = None,
        max_users: int | None = None,
        max_items: int | None = None,
        threads: int = 0,
    ) -> None:
        self.random_state = random_state
        self.factors = factors
        self.iterations = iterations
        self.regularization = regularization
        self.feature_weight = feature_weight
        self.max_interactions = max_interactions
        self.max_users = max_users
        self.max_items = max_items
        self.threads = threads

    def fit(self, interactions: Any, *, schema: Schema | None = None, progress: Progress | None = None) -> Self:
        """Learn from who did something with what.

        Parameters
        ----------
        interactions : pyarrow Table, RecordBatch, RecordBatchReader or dataset; an iterable of RecordBatches; a data
            frame with `__arrow_c_stream__`; a path or list of paths of Parquet or CSV files. One row an interaction;
            repeated rows count as repeated interactions.
        schema : what the columns mean; by default user_id and item_id.
        progress : called with the share done, in [0, 1], and a phrase.

        Raises
        ------
        InteractionsError : no rows, missing columns, null or empty ids, unusable types.
        """
        tell = progress or (lambda _share, _text: None)
        data = read_interactions(interactions, schema or Schema(), tell)
        tell(0.2, "building the matrix")
        population = build_population(
            data,
            max_interactions=self.max_interactions,
            max_users=self.max_users,
            max_items=self.max_items,
            random_state=self.random_state,
        )
        F, self.feature_names_ = feature_columns(data, population.rows)
        F.data *= np.float32(self.feature_weight)
        self.user_ids_ = data.user_ids.take(pa.array(population.rows))
        self.item_ids_ = data.item_ids.take(pa.array(population.columns))
        self.n_interactions_ = population.n_interactions
        self.n_active_users_ = population.n_active_users
        X = population.X
        del data, population  # the codes are as large as X; training needs the room
        self._set(
            learn_evidence(
                X,
                F,
                factors=self.factors,
                iterations=self.iterations,
                regularization=self.regularization,
                random_state=self.random_state,
                threads=self.threads,
                progress=lambda share, text: tell(0.25 + 0.7 * share, f"learning user vectors: {text}"),
            )
        )
        tell(1.0, f"{self.n_users_:,} users, {self.n_items_:,} items")
        return self

    def _set(self, evidence: Evidence) -> None:
        self.evidence_ = evidence
        self.n_users_, self.n_items_ = evidence.X.shape

    def match(self, seed_ids: Any) -> tuple[np.ndarray, int]:
        """(ascending row numbers of the seed's users, number of distinct seed ids that are no user of the model).

        Raises
        ------
        SeedError : the seed is empty, holds something that is no id, or matches nobody.
        """
        if not hasattr(self, "evidence_"):
            raise LookalikeError("This model is not fitted yet; call fit or load first.")
        seed = canonical_seed(seed_ids)
        if not len(seed):
            raise SeedError("The seed is empty.")
        rows = np.flatnonzero(pc.is_in(self.user_ids_, value_set=seed).to_numpy(zero_copy_only=False))
        if not len(rows):
            raise SeedError(f"None of the {len(seed):,} ids of the seed is a user of the model.")
        return rows, len(seed) - len(rows)

    def score(self, seed_ids: Any) -> np.ndarray:
        """Likeness to the seed: float32 aligned with `user_ids_`, higher is more alike; comparable within one seed.

        Raises
        ------
        SeedError : see `match`.
        """
        rows, _ = self.match(seed_ids)
        return score_seeds(self.evidence_, [rows])[:, 0]

    def expand(self, seed_ids: Any, size: int, *, include_seed: bool = False) -> pa.Array:
        """Ids of the `size` users most like the seed, best first; the seed's own users are left out or come first.

        Raises
        ------
        SeedError : see `match`. ValueError : the model has not so many users.
        """
        rows, unmatched = self.match(seed_ids)
        scores = score_seeds(self.evidence_, [rows])[:, 0]
        ranking = self._ranking(scores, rows, unmatched, float("nan"), 0.2, None)
        return ranking.audience(size, include_seed=include_seed)

    def relevance(self, seed_ids: Any, sizes: Sequence[int], *, include_seed: bool = False) -> np.ndarray:
        """Relevance of audiences of these sizes, in [-1, 1]; see `Ranking.relevance`."""
        return self.rank(seed_ids).relevance(sizes, include_seed=include_seed)

    def recall(self, seed_ids: Any, *, top: float = 0.2, folds: int = 5) -> float:
        """Share of hidden seed users found in the top `top` of the ranking; a random ranking gives `top`."""
        return self.rank(seed_ids, top=top, folds=folds).recall

    def rank(self, seed_ids: Any, *, top: float = 0.2, folds: int = 5) -> Ranking:
        """Everything about one seed from one block of fits: the full one and one for each fold.

        Parameters
        ----------
        top : share of the users not fitted as seed in which recall looks for the hidden ones, in (0, 1].
        folds : parts that the seed is cut into, 2 or more; each is hidden once.

        Raises
        ------
        SeedError : see `match`.
        """
        if not 0 < top <= 1 or folds < 2:
            raise ValueError("top must be in (0, 1] and folds at least 2.")
        rows, unmatched = self.match(seed_ids)
        hidden = fold_rows(rows, folds, self.random_state) if len(rows) > 1 else []
        fitted = [np.setdiff1d(rows, part, assume_unique=True) for part in hidden]
        scores = score_seeds(self.evidence_, [rows, *fitted])
        rng = np.random.default_rng(self.random_state)
        recalls, positions = [], []
        for j, (fit, part) in enumerate(zip(fitted, hidden, strict=True), start=1):
            first, last, n = hidden_positions(scores[:, j], fit, part)
            recalls.append(float(top_share(first, last, n, top).mean()))
            positions.append((first + rng.random(len(first)) * (last - first)) / n)
        recall = float(np.mean(recalls)) if recalls else float("nan")
        curve = relevance_curve(np.concatenate(positions)) if positions else None
        return self._ranking(np.ascontiguousarray(scores[:, 0]), rows, unmatched, recall, top, curve)

    def _ranking(
        self,
        scores: np.ndarray,
        rows: np.ndarray,
        unmatched: int,
        recall: float,
        top: float,
        curve: Relevance | None,
    ) -> Ranking:
        # Equal scores come in a fixed random order: the order of the ids may mean something.
        shuffled = np.random.default_rng(self.random_state).permutation(self.n_users_)
        best_first = shuffled[np.argsort(-scores[shuffled], kind="stable")]
        is_seed = np.zeros(self.n_users_, bool)
        is_seed[rows] = True
        in_seed = is_seed[best_first]
        order = np.concatenate([best_first[in_seed], best_first[~in_seed]])
        return Ranking(order, scores, len(rows), unmatched, recall, top, curve, self.user_ids_)

    def save(self, directory: str | Path, *, open: storage.Opener | None = None) -> None:  # noqa: A002
        """Write the model into a directory.

        Parameters
        ----------
        open : (path, mode) -> binary file object; replace it to encrypt the files.
        """
        if not hasattr(self, "evidence_"):
            raise LookalikeError("This model is not fitted yet; call fit first.")
        e = self.evidence_
        storage.write_model(
            Path(directory),
            open or storage.plain,
            facts={
                "parameters": {name: getattr(self, name) for name in PARAMETERS},
                "n_interactions": self.n_interactions_,
                "n_active_users": self.n_active_users_,
                "feature_scale": e.feature_scale,
            },
            arrays={
                "vectors": e.vectors,
                "gram": e.gram,
                "row_scale": e.row_scale,
                "column_scale": e.column_scale,
                **{f"items_{k}": getattr(e.X, k) for k in ("data", "indices", "indptr")},
                **{f"features_{k}": getattr(e.F, k) for k in ("data", "indices", "indptr")},
            },
            texts={
                "user_ids": self.user_ids_,
                "item_ids": self.item_ids_,
                "feature_names": pa.array(self.feature_names_, pa.large_string()),
            },
        )

    @classmethod
    def load(cls, directory: str | Path, *, open: storage.Opener | None = None) -> Lookalike:  # noqa: A002
        """Read a saved model; plain files are memory-mapped and must not change while the model is in use.

        Raises
        ------
        ModelFileError : the directory holds no whole model of this format.
        """
        facts, arrays, texts = storage.read_model(Path(directory), open or storage.plain)
        try:
            model = cls(**facts["parameters"])
            n_users, n_items = len(texts["user_ids"]), len(texts["item_ids"])
            X = _sparse(arrays, "items", (n_users, n_items))
            F = _sparse(arrays, "features", (n_users, len(texts["feature_names"])))
            vectors = arrays["vectors"]
            gram, row_scale, column_scale = arrays["gram"], arrays["row_scale"], arrays["column_scale"]
            if vectors.shape != (n_users, len(gram)) or len(row_scale) != n_users or len(column_scale) != n_items:
                raise ModelFileError(f"The files in {directory} do not belong together.")
            model.user_ids_, model.item_ids_ = texts["user_ids"], texts["item_ids"]
            model.feature_names_ = texts["feature_names"].to_pylist()
            model.n_interactions_ = int(facts["n_interactions"])
            model.n_active_users_ = int(facts["n_active_users"])
            model._set(Evidence(vectors, gram, X, row_scale, column_scale, F, float(facts["feature_scale"])))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"{directory} holds no whole model: {error}") from error
        return model


def _sparse(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, int]) -> sp.csr_matrix:
    parts = tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return sp.csr_matrix(parts, shape=shape, copy=False)
