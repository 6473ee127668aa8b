"""The engine on a Spark cluster, for interactions or users that are too many for one machine.

Spark counts, joins and sorts. Ids become texts, users vectors and vectors scores by the functions of the one-machine
engine, over Arrow batches in the executors (`mapInArrow`); the sample is drawn and learned from by its functions in the
driver. So the users, the items, the sample and the embedding are the same, and vectors differ by rounding at most.

The driver holds what grows with users and items (ids, activity, features if there are any) and the sample; not the
interactions and not the vectors. Spark's limit for what comes to the driver, spark.driver.maxResultSize, must allow
for the ids. An item takes some 1.5 kB of each Python worker. The executors need this package installed. The session
must be a classic one: Spark Connect has no broadcasts.
"""

from __future__ import annotations

import os
import pickle
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from whiteroom.engines.lookalike import spark_batches as batches
from whiteroom.engines.lookalike.embedding import Start, learn_embedding
from whiteroom.engines.lookalike.errors import InteractionsError
from whiteroom.engines.lookalike.features import feature_columns
from whiteroom.engines.lookalike.interactions import Categories, Means, check_id_type, read_interactions
from whiteroom.engines.lookalike.matrix import MOST_REPEATS, hashed_sample, kept_users
from whiteroom.engines.lookalike.privacy import KEY_BYTES
from whiteroom.engines.lookalike.report import POPULAR_ITEMS, VARIANCE, Report, probe_audiences
from whiteroom.engines.lookalike.sources import Schema, check_columns
from whiteroom.engines.lookalike.space import UserSpace, user_space
from whiteroom.engines.lookalike.workspace import Workspace

if TYPE_CHECKING:
    from whiteroom.engines.lookalike.model import Lookalike

try:
    from pyspark.errors import PythonException
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import functions as fn
    from pyspark.sql.pandas.types import to_arrow_schema
    from pyspark.sql.types import ArrayType, StringType, StructField, StructType
except ImportError as error:
    raise ImportError("Training on Spark needs PySpark 4 and Java 17: pip install 'whiteroom[spark]'") from error

Progress = Callable[[float, str], None]


def session(master: str, options: dict[str, str] | None = None) -> SparkSession:
    """A session whose Python workers on this machine run this interpreter.

    What Spark writes to disks on its way (shuffles, spills, what is cached) holds ids, so it is encrypted.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("whiteroom")
    for name, value in ({"spark.io.encryption.enabled": "true"} | (options or {})).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def fit_on_spark(
    model: Lookalike,
    interactions: DataFrame,
    *,
    schema: Schema | None = None,
    progress: Progress | None = None,
    workspace: Workspace | None = None,
    start: Lookalike | None = None,
    collect: bool = True,
) -> Lookalike:
    """Fit `model` (see `Lookalike.fit`) on the cluster of the data frame's session.

    Parameters
    ----------
    interactions : one row an interaction.
    collect : fetch the vectors; the model is then on this machine and independent of Spark. If not, they stay on the
        cluster as long as the session lives, and the methods of the model that need them run Spark jobs.

    Raises
    ------
    InteractionsError : no rows, missing columns, null or empty ids, unusable types.
    """
    tell = progress or (lambda _share, _text: None)
    schema = schema or Schema()
    with _errors_of_workers(), ExitStack() as cached:

        def cache(frame: DataFrame) -> DataFrame:
            cached.callback(frame.unpersist)
            return frame.cache()

        _check(interactions, schema)
        tell(0.0, "counting")
        rows, popularity = _count(model, interactions, schema, cache)
        F, model.feature_names_ = _features(interactions, schema, model.user_ids_)
        sample = hashed_sample(model.user_ids_, rows.entries, model.learning_interactions, model.random_state)
        X = rows.take(sample)
        model.embedding_ = learn_embedding(
            X,
            F[sample],
            dimensions=model.dimensions,
            feature_weight=model.feature_weight,
            random_state=model.random_state,
            threads=model.threads,
            progress=lambda share, text: tell(0.5 + 0.2 * share, f"learning: {text}"),
            start=None if start is None else Start.of(start.embedding_, start.item_ids_, model.item_ids_),
        )
        encoded = _encode(model, rows, F, cache)
        mean, gram, largest = encoded.moments()
        tell(0.9, f"{model.n_users_:,} users encoded")
        vectors, scale = encoded.quantized(model.precision, largest)
        if collect:
            with workspace or Workspace() as space:
                here = vectors.fetch(space.array(vectors.shape, vectors.dtype))
            model.space_ = user_space(here, scale, mean, gram, model.random_state)
        else:
            there: Any = replace(vectors, frame=vectors.frame.cache())
            model.space_ = ClusterSpace(**vars(user_space(there, scale, mean, gram, model.random_state)))
        model.report_ = _report(model, rows, popularity, X, F[sample])
    model.noise_key_ = secrets.token_bytes(KEY_BYTES)
    tell(1.0, f"{model.n_users_:,} users, {model.n_items_:,} items")
    return model


@dataclass(frozen=True)
class ClusterRows:
    """Who did what how often, on a cluster.

    Attributes
    ----------
    frame : one row a user: id (see `spark_batches.ROW_BITS`), user_id, items (codes, ascending), counts; cached.
    ids, entries : int, users, in the order of the sorted user ids: the id, and how many items there are.
    """

    frame: DataFrame
    ids: np.ndarray
    entries: np.ndarray
    n_items: int

    def take(self, rows: np.ndarray) -> sp.csr_matrix:
        """See `Rows.take`."""
        wanted = self.frame.sparkSession.createDataFrame(pa.table({"id": self.ids[rows]}))
        found = self.frame.join(wanted, "id", "left_semi").select("id", "items", "counts").toArrow()
        return batches.counts(found.sort_by("id").combine_chunks().to_batches()[0], self.n_items)

    def coverage(self, columns: np.ndarray) -> tuple[float, int]:
        """(share of the interactions that are with these items, users without any of them)."""
        shared = _broadcast(self.frame, columns)
        parts = self.frame.mapInArrow(
            partial(batches.covered, shared, self.n_items), "n long, covered double, blank long"
        )
        n, covered, blank = (pc.sum(column).as_py() for column in parts.toArrow().columns)
        return covered / n, blank


@dataclass(frozen=True)
class ClusterVectors:
    """User vectors on a cluster, with what `UserSpace` asks of an array: users x dimensions.

    Attributes
    ----------
    frame : row (position among the sorted user ids), user_id, vector (the bytes of its numbers); cached.
    """

    frame: DataFrame
    shape: tuple[int, int]
    dtype: np.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        wanted = self.frame.sparkSession.createDataFrame(pa.table({"row": rows}))
        found = self.frame.join(fn.broadcast(wanted), "row").select("row", "vector").toArrow()
        vectors = np.empty((len(rows), self.shape[1]), self.dtype)
        order = np.argsort(rows)
        vectors[order[np.searchsorted(rows, found["row"].to_numpy(), sorter=order)]] = batches.vectors(
            found, self.dtype
        )
        return vectors

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.fetch(np.empty(self.shape, self.dtype)).astype(dtype or self.dtype, copy=False)

    def fetch(self, out: np.ndarray) -> np.ndarray:
        """All vectors, in `out`; they come partition by partition."""
        for packed in self.frame.mapInArrow(batches.packed, "batch binary").toLocalIterator(prefetchPartitions=True):
            for batch in pa.ipc.open_stream(packed.batch):
                out[batch["row"].to_numpy()] = batches.vectors(batch, self.dtype)
        return out

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(mean of the vectors, mean of their outer products, largest absolute number of each dimension), float64."""
        n, size = self.shape
        parts = self.frame.mapInArrow(
            partial(batches.moments, size), "total binary, gram binary, largest binary"
        ).toArrow()
        total, gram, largest = ([np.frombuffer(one) for one in part.to_pylist()] for part in parts.columns)
        return np.sum(total, axis=0) / n, np.sum(gram, axis=0).reshape(size, size) / n, np.max(largest, axis=0)

    def quantized(self, precision: str, largest: np.ndarray) -> tuple[ClusterVectors, np.ndarray]:
        """See `space.quantized`."""
        scale = np.ones(self.shape[1], np.float32)
        if precision == "int8":
            scale = (np.maximum(largest, 1e-12) / 127).astype(np.float32)
        frame = self.frame.mapInArrow(partial(batches.quantized, precision, scale), self.frame.schema)
        return ClusterVectors(frame, self.shape, np.dtype(precision)), scale


@dataclass(frozen=True)
class ClusterSpace(UserSpace):
    """A `UserSpace` whose `vectors` are `ClusterVectors`; the background is in the driver, as ever."""

    def scores(self, weights: np.ndarray, *, threads: int = 0) -> np.ndarray:  # noqa: ARG002
        scored = self.score_frame(weights).select("row", "score").toArrow()
        out = np.empty(self.n_users, np.float32)
        out[scored["row"].to_numpy()] = scored["score"].to_numpy()
        return out

    def score_frame(self, weights: np.ndarray) -> DataFrame:
        """`scores` as a data frame (row, user_id, score), for what should not pass the driver."""
        vectors: Any = self.vectors
        frame: DataFrame = vectors.frame
        none = np.empty((0, 0), np.float32)
        bare = UserSpace(none, self.scale, self.mean, np.empty(0), none, np.empty(0, np.int64), none)
        return frame.mapInArrow(
            partial(batches.scored, bare, weights, vectors.dtype), "row long, user_id string, score float"
        )


def _count(
    model: Lookalike, interactions: DataFrame, schema: Schema, cache: Callable[[DataFrame], DataFrame]
) -> tuple[ClusterRows, np.ndarray]:
    """`build_population`: (rows, users of each item) within the model's caps. Sets the model's ids and numbers."""
    spark = interactions.sparkSession
    ids = interactions.select(_named(schema.user_id, "user_id"), _named(schema.item_id, "item_id"))
    texts = ids.mapInArrow(partial(batches.canonical, schema), "user_id string, item_id string")
    pairs = cache(texts.groupBy("user_id", "item_id").agg(fn.count("*").alias("n")))
    if model.max_interactions is not None or model.max_users is not None:
        activity = pairs.groupBy("user_id").agg(fn.sum("n").alias("n")).sort("user_id").toArrow()
        caps = (model.max_interactions, model.max_users, model.random_state)
        kept = kept_users(_large(activity["user_id"]), activity["n"].to_numpy(), *caps)
        if len(kept) < len(activity):
            users = spark.createDataFrame(activity.select(["user_id"]).take(kept))
            pairs = pairs.join(users, "user_id", "left_semi")
    items = pairs.groupBy("item_id").agg(fn.count("*").alias("users")).sort("item_id").toArrow()
    if not len(items):
        raise InteractionsError("The interactions hold no rows.")
    if model.max_items is not None and len(items) > model.max_items:
        most = np.argsort(-items["users"].to_numpy(), kind="stable")[: model.max_items]
        items = items.take(np.sort(most))
    model.item_ids_, model.n_items_ = _large(items["item_id"]), len(items)
    codes = pa.table({"item_id": items["item_id"], "item": np.arange(len(items), dtype=np.int32)})
    frame = cache(_rows(pairs.join(spark.createDataFrame(codes), "item_id")))
    users = frame.select("id", "user_id", "total", fn.size("items").alias("entries")).toArrow().sort_by("id")
    model.user_ids_, model.n_users_ = _large(users["user_id"]), len(users)
    model.n_interactions_ = pc.sum(users["total"]).as_py()
    model.n_active_users_ = int(np.count_nonzero(users["total"].to_numpy() >= 2))
    rows = ClusterRows(frame, users["id"].to_numpy(), users["entries"].to_numpy(), model.n_items_)
    return rows, items["users"].to_numpy()


def _encode(
    model: Lookalike, rows: ClusterRows, F: sp.csr_matrix, cache: Callable[[DataFrame], DataFrame]
) -> ClusterVectors:
    """The vectors, which are not computed yet."""
    frame = rows.frame
    if F.shape[1]:
        lists = (pa.LargeListArray.from_arrays(pa.array(F.indptr, pa.int64()), part) for part in (F.indices, F.data))
        features = pa.table([rows.ids, *lists], names=["id", "columns", "weights"])
        frame = frame.join(frame.sparkSession.createDataFrame(features), "id")
    first_rows = np.cumsum(np.bincount((rows.ids >> batches.ROW_BITS) + 1))
    encoding = partial(batches.encoded, _broadcast(frame, model.embedding_), first_rows, model.n_items_, F.shape[1])
    vectors = cache(frame.mapInArrow(encoding, "row long, user_id string, vector binary"))
    return ClusterVectors(vectors, (model.n_users_, model.embedding_.dimensions), np.dtype(np.float32))


def _report(model: Lookalike, rows: ClusterRows, users: np.ndarray, X: sp.csr_matrix, F: sp.csr_matrix) -> Report:
    """`make_report`, whose pass over the population is here one on the cluster."""
    embedding, space = model.embedding_, model.space_
    share, blank = rows.coverage(embedding.columns)
    most = np.argsort(-users, kind="stable")[:POPULAR_ITEMS]
    variance = np.cumsum(np.sort(space.spectrum)[::-1])
    there: Any = rows
    return Report(
        n_users=model.n_users_,
        n_active_users=model.n_active_users_,
        n_items=model.n_items_,
        n_interactions=model.n_interactions_,
        n_learning_users=X.shape[0],
        n_learned_items=len(embedding.columns),
        learned_share=share,
        n_blank_users=blank,
        popular=tuple(zip(model.item_ids_.take(pa.array(most)).to_pylist(), users[most].tolist(), strict=True)),
        dimensions=embedding.dimensions,
        n_main_axes=int(np.searchsorted(variance, VARIANCE * variance[-1]) + 1) if variance[-1] > 0 else 0,
        probes=probe_audiences(
            there, model.item_ids_, X, F, embedding, space, model.probes, model.random_state, model.threads
        ),
    )


def _broadcast(frame: DataFrame, value: Any) -> Any:
    """To be unpickled in the executors: PySpark 4.3 cannot encrypt a broadcast that holds arrays."""
    return frame.sparkSession.sparkContext.broadcast(pickle.dumps(value))


def _named(column: str, name: str) -> Any:
    return fn.col("`" + column.replace("`", "``") + "`").alias(name)


def _large(texts: pa.ChunkedArray) -> pa.Array:
    return texts.cast(pa.large_string()).combine_chunks()


def _check(interactions: DataFrame, schema: Schema) -> None:
    """Refuse here what the one-machine engine refuses for its columns, by the same words."""
    check_columns(interactions.columns, schema)
    kinds = to_arrow_schema(interactions.select(*(_named(name, name) for name in schema.columns)).schema)
    for name in (schema.user_id, schema.item_id):
        check_id_type(kinds.field(name).type, name)
    for name in schema.categorical:
        Categories(name, Workspace()).add(pa.array([], kinds.field(name).type), np.empty(0, np.int32))
    for name in schema.numerical:
        Means(name).add(pa.chunked_array([], kinds.field(name).type), np.empty(0, np.int32), 0)


def _rows(coded: DataFrame) -> DataFrame:
    """One row a user, sorted: user_id, total (interactions), items ascending, counts (of each), id (see ROW_BITS)."""
    entry = fn.struct("item", fn.least("n", fn.lit(MOST_REPEATS)).cast("int").alias("count"))
    entries = fn.sort_array(fn.collect_list(entry)).alias("entries")
    users = coded.groupBy("user_id").agg(fn.sum("n").alias("total"), entries).sort("user_id")
    columns = fn.col("entries.item").alias("items"), fn.col("entries.count").alias("counts")
    return users.select("user_id", "total", *columns, fn.monotonically_increasing_id().alias("id"))


def _features(interactions: DataFrame, schema: Schema, user_ids: pa.Array) -> tuple[sp.csr_matrix, list[str]]:
    """`feature_columns` of these users, from one row a user: the distinct values, the means."""
    if not schema.categorical + schema.numerical:
        return sp.csr_matrix((len(user_ids), 0), dtype=np.float32), []
    named = {f"categorical_{k}": name for k, name in enumerate(schema.categorical)}
    named |= {f"numerical_{k}": name for k, name in enumerate(schema.numerical)}
    aliased = (_named(name, alias) for alias, name in named.items())
    columns = interactions.select(_named(schema.user_id, "user_id"), *aliased)
    kinds = StructType([StructField("user_id", StringType()), *columns.schema.fields[1:]])
    values = columns.mapInArrow(partial(batches.canonical, schema), kinds)
    by_user = []
    for column in kinds.fields[1:]:
        value = fn.col(column.name)
        if column.name.startswith("numerical"):  # NaN is above infinity here
            by_user.append(fn.avg(fn.when(fn.abs(value.cast("double")) < float("inf"), value.cast("double"))))
        elif isinstance(column.dataType, ArrayType):
            by_user.append(fn.flatten(fn.collect_set(value)))
        else:
            by_user.append(fn.collect_set(value))
    aggregated = values.groupBy("user_id").agg(*(one.alias(name) for one, name in zip(by_user, named, strict=True)))
    kinds_of = (tuple(alias for alias in named if alias.startswith(kind)) for kind in ("categorical", "numerical"))
    aliases = Schema("user_id", "user_id", *kinds_of)
    with Workspace() as workspace:
        data = read_interactions(aggregated.toArrow(), aliases, workspace=workspace)
    data = replace(
        data,
        categorical={named[alias]: coded for alias, coded in data.categorical.items()},
        numerical={named[alias]: means for alias, means in data.numerical.items()},
    )
    return feature_columns(data, pc.index_in(user_ids, value_set=data.user_ids).to_numpy())


@contextmanager
def _errors_of_workers() -> Iterator[None]:
    """What a worker says of the input comes as the text of its traceback; here it is said as on one machine."""
    try:
        yield
    except PythonException as error:
        if said := re.search(r"InteractionsError: (.+)", str(error)):
            raise InteractionsError(said[1]) from None
        raise
