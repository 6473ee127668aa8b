"""The estimator: fit once on interactions, then rank all users for any seed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from whiteroom.engines.lookalike import storage
from whiteroom.engines.lookalike.embedding import (
    Embedding,
    Start,
    learn_embedding,
    one_blas_thread,
)
from whiteroom.engines.lookalike.errors import LookalikeError, ModelFileError, SeedError
from whiteroom.engines.lookalike.features import feature_columns
from whiteroom.engines.lookalike.heads import fit_seed
from whiteroom.engines.lookalike.interactions import canonical_seed, read_interactions
from whiteroom.engines.lookalike.matrix import Rows, build_population, sample_users
from whiteroom.engines.lookalike.metrics import Figures, figures, left_out_users
from whiteroom.engines.lookalike.privacy import KEY_BYTES, Noise
from whiteroom.engines.lookalike.ranking import Ranking
from whiteroom.engines.lookalike.report import Report, make_report
from whiteroom.engines.lookalike.sources import Schema
from whiteroom.engines.lookalike.space import UserSpace, quantized, user_space
from whiteroom.engines.lookalike.workspace import Workspace

Progress = Callable[[float, str], None]

PARAMETERS = (
    "random_state",
    "dimensions",
    "precision",
    "feature_weight",
    "learning_interactions",
    "max_interactions",
    "max_users",
    "max_items",
    "probes",
)
PRECISIONS = ("float32", "float16", "int8")


class Lookalike:
    """Ranks the users of a population by their likeness to a seed.

    Parameters
    ----------
    random_state : sampling, starting factors, order of ties. The same data and state give the same results, whatever
        the order of the rows and the number of threads.
    dimensions : length of a user vector, at most.
    precision : of the vectors kept: "float32", "float16" or "int8".
    feature_weight : of all features together, where what users did has the weight 1.
    learning_interactions : what users have in common is learned from users with about so many interactions, drawn by
        a hash of their ids; every user's vector then follows from what was learned.
    max_interactions : of more interactions a sample of users is kept, drawn by a hash of their ids.
    max_users : of more users those with the most interactions are kept.
    max_items : of more items those with the most users are kept.
    probes : audiences of the data themselves on which `report_` measures the model's quality.
    threads : threads of training; 0 takes all cores. Changes no result.

    Attributes
    ----------
    user_ids_ : large_string array, sorted; row r of every result is user_ids_[r].
    item_ids_ : large_string array, sorted: the items that count.
    feature_names_ : the feature columns that count, such as "country=France" or "age in (20, 30]".
    n_users_, n_items_, n_interactions_ : how many of each the model stands for.
    n_active_users_ : users with two or more interactions, repeats counted.
    noise_key_ : secret bytes, new with every fit, from which the noise of `rank` follows.
    embedding_ : what was learned (see `embedding.Embedding`). space_ : the users' vectors (see `space.UserSpace`).
    report_ : what the model learned, for the owner of the data (see `report.Report`).

    The method and its sources are in docs/lookalike.md.
    """

    user_ids_: pa.Array
    item_ids_: pa.Array
    feature_names_: list[str]
    n_users_: int
    n_items_: int
    n_interactions_: int
    n_active_users_: int
    noise_key_: bytes
    embedding_: Embedding
    space_: UserSpace
    report_: Report

    def __init__(
        self,
        *,
        random_state: int = 0,
        dimensions: int = 192,
        precision: str = "int8",
        feature_weight: float = 0.3,
        learning_interactions: int = 5_000_000,
        max_interactions: int | None = None,
        max_users: int | None = None,
        max_items: int | None = None,
        probes: int = 0,
        threads: int = 0,
    ) -> None:
        self.random_state = random_state
        self.dimensions = dimensions
        self.precision = precision
        self.feature_weight = feature_weight
        self.learning_interactions = learning_interactions
        self.max_interactions = max_interactions
        self.max_users = max_users
        self.max_items = max_items
        self.probes = probes
        self.threads = threads

    def fit(
        self,
        interactions: Any,
        *,
        schema: Schema | None = None,
        progress: Progress | None = None,
        workspace: Workspace | None = None,
        start: Lookalike | None = None,
    ) -> Self:
        """Learn from who did something with what.

        Parameters
        ----------
        interactions : pyarrow Table, RecordBatch, RecordBatchReader or dataset; an iterable of RecordBatches; a data
            frame with `__arrow_c_stream__`; a path or list of paths of Parquet or CSV files; a Spark data frame, which
            is worked on where its session runs (`spark.fit_on_spark`). One row an interaction; repeated rows count as
            repeated interactions.
        schema : what the columns mean; by default user_id and item_id.
        progress : called with the share done, in [0, 1], and a phrase.
        workspace : how much memory the large arrays may take, and where they go beyond it.
        start : an earlier model of much the same items: its factors save iterations, and become part of what the
            result depends on.

        Raises
        ------
        InteractionsError : no rows, missing columns, null or empty ids, unusable types.
        MemoryLimitError : the distinct ids alone need more memory than the workspace may use, or its disk is full.
        """
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}.")
        if start is not None:
            start._check_fitted()
        self.noise_key_ = secrets.token_bytes(KEY_BYTES)
        if type(interactions).__module__.startswith("pyspark."):
            from whiteroom.engines.lookalike.spark import fit_on_spark

            fit_on_spark(self, interactions, schema=schema, progress=progress, workspace=workspace, start=start)
            return self
        tell = progress or (lambda _share, _text: None)
        with workspace or Workspace() as space:
            self._fit(interactions, schema or Schema(), tell, space, start)
        tell(1.0, f"{self.n_users_:,} users, {self.n_items_:,} items")
        return self

    def _fit(
        self, interactions: Any, schema: Schema, tell: Progress, workspace: Workspace, start: Lookalike | None
    ) -> None:
        data = read_interactions(interactions, schema, tell, workspace=workspace)
        tell(0.4, "counting")
        population = build_population(
            data,
            workspace=workspace,
            max_interactions=self.max_interactions,
            max_users=self.max_users,
            max_items=self.max_items,
            random_state=self.random_state,
        )
        F, self.feature_names_ = feature_columns(data, population.rows)
        self.user_ids_ = data.user_ids.take(pa.array(population.rows))
        self.item_ids_ = data.item_ids.take(pa.array(population.columns))
        self.n_users_, self.n_items_ = population.X.n_users, population.X.n_items
        self.n_interactions_ = population.n_interactions
        self.n_active_users_ = population.n_active_users
        del data  # the codes are as large as the matrix; training needs the room
        sample = sample_users(population, self.user_ids_, self.learning_interactions, self.random_state)
        X = population.X.take(sample)
        self.embedding_ = learn_embedding(
            X,
            F[sample],
            dimensions=self.dimensions,
            feature_weight=self.feature_weight,
            random_state=self.random_state,
            threads=self.threads,
            progress=lambda share, text: tell(0.5 + 0.2 * share, f"learning: {text}"),
            start=None if start is None else Start.of(start.embedding_, start.item_ids_, self.item_ids_),
        )
        self._encode(population.X, F, tell, workspace)
        self.report_ = make_report(
            population,
            self.item_ids_,
            X,
            F[sample],
            self.embedding_,
            self.space_,
            probes=self.probes,
            random_state=self.random_state,
            threads=self.threads,
        )

    def _encode(self, rows: Rows, F: sp.csr_matrix, tell: Progress, workspace: Workspace) -> None:
        size = self.embedding_.dimensions
        vectors = workspace.array((self.n_users_, size), np.float32)
        total, gram = np.zeros(size), np.zeros((size, size))
        for start, stop in rows.blocks():
            part = self.embedding_.encode(rows.block(start, stop), F[start:stop], threads=self.threads)
            vectors[start:stop] = part
            total += part.sum(axis=0, dtype=np.float64)
            with one_blas_thread():
                gram += part.T @ part
            tell(0.7 + 0.3 * stop / self.n_users_, f"{stop:,} of {self.n_users_:,} users encoded")
        self.space_ = user_space(
            *quantized(vectors, self.precision, workspace),
            total / self.n_users_,
            gram / self.n_users_,
            self.random_state,
        )

    def match(self, seed_ids: Any) -> tuple[np.ndarray, int]:
        """(ascending row numbers of the seed's users, number of distinct seed ids that are no user of the model).

        Raises
        ------
        SeedError : the seed is empty, holds something that is no id, or matches nobody.
        """
        self._check_fitted()
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
        return self.space_.scores(fit_seed(self.space_, rows).weights, threads=self.threads)

    def expand(self, seed_ids: Any, size: int, *, include_seed: bool = False) -> pa.Array:
        """Ids of the `size` users most like the seed, best first; the seed's own users are left out or come first.

        Raises
        ------
        SeedError : see `match`. ValueError : the model has not so many users.
        """
        rows, unmatched = self.match(seed_ids)
        scores = self.space_.scores(fit_seed(self.space_, rows).weights, threads=self.threads)
        ranking = self._ranking(scores, rows, unmatched, Figures(len(rows), float("nan"), 0.2, None))
        return ranking.audience(size, include_seed=include_seed)

    def relevance(self, seed_ids: Any, sizes: Sequence[int], *, include_seed: bool = False) -> np.ndarray:
        """Relevance of audiences of these sizes, in [-1, 1]; see `Ranking.relevance`."""
        return self.rank(seed_ids).relevance(sizes, include_seed=include_seed)

    def recall(self, seed_ids: Any, *, top: float = 0.2) -> float:
        """Share of seed users found in the top `top` of the ranking when left out; a random ranking gives `top`."""
        return self.rank(seed_ids, top=top).recall

    def rank(self, seed_ids: Any, *, top: float = 0.2, epsilon: float | None = None) -> Ranking:
        """Everything about one seed: the ranking, and what leaving out each seed user in turn says of it.

        Parameters
        ----------
        top : share of the users outside the seed in which recall looks for the left-out ones, in (0, 1].
        epsilon : privacy loss of recall and relevance (see `privacy`); None for exact ones. The order is always exact.

        Raises
        ------
        SeedError : see `match`.
        """
        if not 0 < top <= 1:
            raise ValueError("top must be in (0, 1].")
        rows, unmatched = self.match(seed_ids)
        fit = fit_seed(self.space_, rows)
        scores = self.space_.scores(fit.weights, threads=self.threads)
        left_out = left_out_users(rows, *fit.left_out(), top=top, random_state=self.random_state)
        told = figures(left_out) if epsilon is None else self.noise(seed_ids, epsilon).figures(left_out)
        return self._ranking(scores, rows, unmatched, told)

    def noise(self, seed_ids: Any, epsilon: float) -> Noise:
        """What `rank(seed_ids, epsilon=epsilon)` blurs its figures with, and the number of matches.

        Raises
        ------
        SeedError : the seed holds something that is no id. ValueError : epsilon is not positive.
        """
        self._check_fitted()
        return Noise.of(self.noise_key_, canonical_seed(seed_ids), epsilon)

    def _ranking(self, scores: np.ndarray, rows: np.ndarray, unmatched: int, told: Figures) -> Ranking:
        # Equal scores come in a fixed random order: the order of the ids may mean something.
        shuffled = np.random.default_rng(self.random_state).permutation(self.n_users_)
        best_first = shuffled[np.argsort(-scores[shuffled], kind="stable")]
        is_seed = np.zeros(self.n_users_, bool)
        is_seed[rows] = True
        in_seed = is_seed[best_first]
        order = np.concatenate([best_first[in_seed], best_first[~in_seed]])
        return Ranking(order, scores, len(rows), unmatched, told, self.user_ids_)

    def save(self, directory: str | Path, *, open: storage.Opener | None = None) -> None:  # noqa: A002
        """Write the model into a directory.

        Parameters
        ----------
        open : (path, mode) -> binary file object; replace it to encrypt the files.
        """
        self._check_fitted()
        e, space = self.embedding_, self.space_
        storage.write_model(
            Path(directory),
            open or storage.plain,
            facts={
                "parameters": {name: getattr(self, name) for name in PARAMETERS},
                "n_interactions": self.n_interactions_,
                "n_active_users": self.n_active_users_,
                "noise_key": self.noise_key_.hex(),
                "embedding": e.facts(),
                "report": self.report_.to_json(),
            },
            arrays={
                "vectors": space.vectors,
                "scale": space.scale,
                "mean": space.mean,
                "spectrum": space.spectrum,
                "axes": space.axes,
                **e.arrays(),
            },
            texts={
                "user_ids": self.user_ids_,
                "item_ids": self.item_ids_,
                "feature_names": pa.array(self.feature_names_, pa.large_string()),
            },
        )

    def _check_fitted(self) -> None:
        if not hasattr(self, "space_"):
            raise LookalikeError("This model is not fitted yet; call fit or load first.")

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
            model.user_ids_, model.item_ids_ = texts["user_ids"], texts["item_ids"]
            model.feature_names_ = texts["feature_names"].to_pylist()
            model.n_users_, model.n_items_ = len(model.user_ids_), len(model.item_ids_)
            model.n_interactions_ = int(facts["n_interactions"])
            model.n_active_users_ = int(facts["n_active_users"])
            model.noise_key_ = bytes.fromhex(facts["noise_key"])
            model.report_ = Report.from_json(facts["report"])
            rotation = arrays["rotation"]
            fits = (
                arrays["vectors"].shape == (model.n_users_, rotation.shape[1]),
                arrays["axes"].shape == (rotation.shape[1], rotation.shape[1]),
                arrays["idf"].shape == (model.n_items_,),
                len(arrays["right"]) == len(arrays["columns"]),
            )
            if not all(fits):
                raise ModelFileError(f"The files in {directory} do not belong together.")
            model.embedding_ = Embedding.of(facts["embedding"], arrays)
            kept = {name: arrays[name] for name in ("vectors", "scale", "mean", "spectrum", "axes")}
            model.space_ = UserSpace.of(**kept, random_state=model.random_state)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"{directory} holds no whole model: {error}") from error
        return model
