"""Audience models: training on the interactions that a training dataset names."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from whiteroom.data.errors import DataError
from whiteroom.jobs.kinds import JobError, JobKind, Outcome, Work
from whiteroom.rooms import access, artifacts, kinds, lifecycle, tags, training_data
from whiteroom.rooms.kinds import AUDIENCE_MODEL, CONFIGURED_AUDIENCE_MODEL, TRAINING_DATASET
from whiteroom.rooms.states import move
from whiteroom.store import accounts
from whiteroom.wire.errors import validation
from whiteroom.wire.service import operation

if TYPE_CHECKING:
    import pyarrow as pa

    from whiteroom.config import Limits
    from whiteroom.engines.lookalike import Lookalike
    from whiteroom.rooms.room import Room
    from whiteroom.store.tables import CatalogTable
    from whiteroom.wire.service import Call

# AWS user guide, ml-training-data-requirements: the table types that each kind of column may have.
GLUE_TYPES = {
    "USER_ID": ("string", "varchar", "char", "int", "integer", "smallint", "tinyint", "bigint"),
    "ITEM_ID": ("string", "varchar", "char", "int", "integer", "smallint", "tinyint", "bigint"),
    "TIMESTAMP": ("bigint", "int", "integer", "timestamp"),
    "CATEGORICAL_FEATURE": (
        *("string", "varchar", "char", "int", "integer", "smallint", "tinyint", "bigint"),
        *("float", "double", "boolean", "array"),
    ),
    "NUMERICAL_FEATURE": ("double", "float", "int", "integer", "smallint", "tinyint", "bigint"),
}
PROBES = 10
"""Audiences of the training data themselves on which a model's quality is reported to its owner."""
ROWS_PER_FILE = 5_000_000
"""Of the copy that Spark reads: one file is one task's."""
LAST_SECOND = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())

kinds.serve_get(AUDIENCE_MODEL)
kinds.serve_list(AUDIENCE_MODEL)


@operation("cleanroomsml", "CreateAudienceModel", scope=access.own_account)
def create_audience_model(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    dataset = kinds.find(call, TRAINING_DATASET, request["trainingDatasetArn"])
    window = kinds.picked(request, "trainingDataStartTime", "trainingDataEndTime")
    if len(window) == 2 and window["trainingDataStartTime"] >= window["trainingDataEndTime"]:
        raise validation("trainingDataStartTime must be before trainingDataEndTime.")
    if "kmsKeyArn" in request:
        access.require_own_key(call, request["kmsKeyArn"])
    limits: Limits = call.context.limits
    kinds.require_room_for_one(call, AUDIENCE_MODEL, "Audience models", limits.max_audience_models)
    kinds.require_room_for_pending(call, AUDIENCE_MODEL, "Pending audience models", limits.max_pending_audience_models)
    body = kinds.picked(request, "trainingDatasetArn", "kmsKeyArn", "description")
    body |= {k: v.isoformat() for k, v in window.items()} | tags.of(request)
    model = kinds.create(
        call, AUDIENCE_MODEL, name=request["name"], body=body, status="CREATE_PENDING", parent=dataset.arn
    )
    payload = {
        "account": call.caller.account,
        "input": dataset.body["trainingData"][0]["inputConfig"],
        "kmsKeyArn": request.get("kmsKeyArn"),
        "start": int(window["trainingDataStartTime"].timestamp()) if "trainingDataStartTime" in window else None,
        "end": int(window["trainingDataEndTime"].timestamp()) if "trainingDataEndTime" in window else None,
    }
    lifecycle.submit(call, CREATE.name, payload, model.arn)
    return {"audienceModelArn": model.arn}


@operation("cleanroomsml", "DeleteAudienceModel", scope=access.own_account)
def delete_audience_model(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    accounts.lock(call.tx, call.caller.account)  # no configured model may be made of it at the same time
    model = kinds.find(call, AUDIENCE_MODEL, request["audienceModelArn"])
    if lifecycle.require_deletable(AUDIENCE_MODEL.words, model):
        kinds.require_no_children(call.tx, AUDIENCE_MODEL, model, CONFIGURED_AUDIENCE_MODEL)
        move(call.tx, model, "DELETE_PENDING", now=call.now)
        lifecycle.submit(call, lifecycle.DELETE.name, {}, model.arn)
    return {}


def train(work: Work) -> Outcome:
    """Read the table, fit the engine, keep its files; the model becomes ACTIVE with the transaction returned."""
    from whiteroom.engines.lookalike.errors import MemoryLimitError

    room: Room = work.context
    payload = work.job.payload
    try:
        model = _fit(room, work)
        artifact, opener = artifacts.new(work, payload["kmsKeyArn"])
        with artifacts.room_on_disk():
            model.save(work.directory, open=opener)
    except DataError as error:
        raise JobError(error.status_code, error.message) from error
    except (MemoryError, MemoryLimitError) as error:
        traceback.print_exc()  # to the job's log: it names the server's files, which are no caller's business
        raise _out_of_memory(work) from error
    facts = {"users": model.n_users_, "items": model.n_items_, "interactions": model.n_interactions_}

    def activate(tx: Connection, now: datetime) -> None:
        for resource in lifecycle.moved(tx, work.job):
            private = resource.private | {"artifact": artifact, "facts": facts}
            move(tx, resource, "ACTIVE", now=now, private=private)

    return activate


CREATE = JobKind(name="audience-model", started=lifecycle.started, run=train, failed=lifecycle.failed())


def _fit(room: Room, work: Work) -> Lookalike:
    from whiteroom.data import tables
    from whiteroom.engines.lookalike import InteractionsError, Lookalike, Schema
    from whiteroom.engines.lookalike.workspace import Workspace

    payload = work.job.payload
    source = payload["input"]["dataSource"]["glueDataSource"]
    table = room.catalog.table(payload["account"], source["databaseName"], source["tableName"])
    columns = {c["columnName"]: c["columnTypes"][0] for c in payload["input"]["schema"]}
    _check_types(table, columns)
    limits = room.limits
    schema = Schema(
        user_id=_named(columns, "USER_ID"),
        item_id=_named(columns, "ITEM_ID"),
        categorical=tuple(name for name, kind in columns.items() if kind == "CATEGORICAL_FEATURE"),
        numerical=tuple(name for name, kind in columns.items() if kind == "NUMERICAL_FEATURE"),
    )
    batches = tables.batches(
        room.files.as_account(payload["account"]),
        table,
        list(columns),
        epoch=[_named(columns, "TIMESTAMP")],
    )
    model = Lookalike(
        random_state=room.settings.random_state,
        max_interactions=limits.max_interactions,
        max_users=limits.max_users,
        max_items=limits.max_items,
        probes=PROBES,
    )
    # What does not fit goes into files beside the result; of a model that is encrypted, nothing may.
    workspace = Workspace(work.directory, work.memory_bytes // 2, spills=payload["kmsKeyArn"] is None)
    rows = _interactions(batches, columns, payload["start"], payload["end"])
    try:
        with _on_spark_if_many(room, work, rows) as interactions:
            model.fit(interactions, schema=schema, progress=work.progress, workspace=workspace)
    except InteractionsError as error:
        raise JobError("INVALID_TRAINING_DATA", str(error)) from error
    _check_minimums(model, limits)
    return model


@contextmanager
def _on_spark_if_many(room: Room, work: Work, rows: Iterator[pa.RecordBatch]) -> Iterator[Any]:
    """The rows to train on: as they come, or as a Spark data frame where the settings ask for one.

    The cluster does not know whose bucket is whose, so it gets a copy of the rows and not their place.
    """
    settings = room.settings
    if not settings.spark_master or work.job.payload["kmsKeyArn"]:
        yield rows
        return
    import pyarrow.dataset as ds

    with TemporaryDirectory(dir=work.directory, prefix="rows-") as copy:
        work.progress(0.0, "copying the interactions")
        count = _copied(rows, Path(copy))
        if count < settings.spark_from_interactions:
            yield ds.dataset(copy, format="parquet")
            return
        from whiteroom.engines.lookalike.spark import session

        options = {
            "spark.driver.memory": f"{work.memory_bytes // 4 >> 20}m",
            "spark.sql.shuffle.partitions": str(max(2, count // ROWS_PER_FILE)),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
        cluster = session(settings.spark_master, options)
        try:
            yield cluster.read.parquet(Path(copy).absolute().as_uri())
        finally:
            cluster.stop()


def _copied(rows: Iterator[pa.RecordBatch], into: Path) -> int:
    """Write the rows to Parquet files of a few million each; how many they were."""
    import pyarrow.parquet as pq

    count, writer, left = 0, None, 0
    try:
        for batch in rows:
            if writer is None or left <= 0:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(into / f"{count:015d}.parquet", batch.schema)
                left = ROWS_PER_FILE
            writer.write_batch(batch)
            count, left = count + batch.num_rows, left - batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    return count


def _out_of_memory(work: Work) -> JobError:
    """Another attempt would not help, so the job ends."""
    unencrypted = ", and with kmsKeyArn none of them may lie on disk unencrypted meanwhile"
    return JobError(
        "OUT_OF_MEMORY",
        f"The training data need more than the {work.memory_bytes / 2**30:.1f} GiB of memory that the server gives a "
        f"job{unencrypted if work.job.payload['kmsKeyArn'] else ''}. Use fewer users, items or features (a time window "
        "leaves rows out), or ask the operator for more memory or disk. The operator finds the details in the log of "
        f"job {work.job.id}.",
    )


def _check_types(table: CatalogTable, columns: dict[str, str]) -> None:
    """The schema of the training dataset must agree with the table's."""
    declared = {c.name.lower(): c.type.lower() for c in table.columns}
    for name, kind in columns.items():
        glue_type = declared.get(name.lower())
        if glue_type is None:
            raise JobError(
                "SCHEMA_MISMATCH",
                f"The table {table.database}.{table.name} has no column {name!r}; it has {', '.join(declared)}.",
            )
        if glue_type.split("(")[0].split("<")[0] not in GLUE_TYPES[kind]:
            raise JobError(
                "SCHEMA_MISMATCH",
                f"The column {name!r} has the type {glue_type}; a {kind} column must be one of "
                f"{', '.join(GLUE_TYPES[kind])}.",
            )


def _named(columns: dict[str, str], kind: str) -> str:
    """The one column of an id's kind."""
    return next(name for name, k in columns.items() if k == kind)


def _interactions(
    batches: Iterator[pa.RecordBatch], columns: dict[str, str], start: int | None, end: int | None
) -> Iterator[pa.RecordBatch]:
    """The rows with a time in [start, end), once their ids and times are known to be fit for use."""
    import pyarrow.compute as pc

    time = _named(columns, "TIMESTAMP")
    for batch in batches:
        for name in (_named(columns, kind) for kind in training_data.IDS):
            if batch.column(name).null_count:
                raise JobError("INVALID_TRAINING_DATA", f"The column {name!r} holds null values; remove those rows.")
        seconds = batch.column(time)
        span = pc.min_max(seconds).as_py()
        if len(seconds) and not 0 <= span["min"] <= span["max"] <= LAST_SECOND:
            raise JobError(
                "INVALID_TRAINING_DATA",
                f"The column {time!r} holds times outside the years 1970 to 9999. It must hold seconds since "
                "1970-01-01, not milliseconds.",
            )
        if start is not None:
            batch = batch.filter(pc.greater_equal(batch.column(time), start))
        if end is not None:
            batch = batch.filter(pc.less(batch.column(time), end))
        yield batch


def _check_minimums(model: Lookalike, limits: Limits) -> None:
    if model.n_interactions_ < limits.min_interactions:
        raise JobError(
            "INSUFFICIENT_INTERACTIONS",
            f"The training data hold {model.n_interactions_} interactions; at least {limits.min_interactions} are "
            "needed. A time window, if you gave one, leaves the others out.",
        )
    if model.n_active_users_ < limits.min_users:
        raise JobError(
            "INSUFFICIENT_USERS",
            f"The training data hold {model.n_active_users_} users with two or more interactions; at least "
            f"{limits.min_users} are needed.",
        )
