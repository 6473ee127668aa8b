"""The queue: rows of the `job` table and the only statements that change them.

Knows no process and no kind of job. The attempt number is the fencing token: `claim` raises it, and what a
claimer later says of the job counts only while the job still runs that attempt. So a worker that was
stopped, cut off or taken for dead can change nothing once its job was given to another.

No time is read here: `now` comes from the caller, so that all of a transaction happens at one time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, exists, insert, or_, select, update

from whiteroom.store import schema

ABANDONED_BATCH = 20
QUEUED, RUNNING, DONE, FAILED = "QUEUED", "RUNNING", "DONE", "FAILED"

_job = schema.job.c


class Fenced(Exception):
    """The job is no longer the caller's: cancelled, deleted, ended, or given to another attempt."""


@dataclass(frozen=True)
class Job:
    """One row. `attempt` counts claims, `crashes` those that ended without a word; the job fails for good
    when the crashes reach `max_attempts`. `checkpoint` is what an earlier attempt left for the next one.
    """

    id: int
    kind: str
    resource_arn: str
    payload: dict[str, Any]
    status: str
    attempt: int
    crashes: int
    max_attempts: int
    worker: str | None
    lease_until: datetime | None
    run_after: datetime
    checkpoint: dict[str, Any] | None
    progress: float
    progress_text: str
    cancel_requested: bool
    error: str | None
    created: datetime
    started: datetime | None
    ended: datetime | None


_columns = [_job[name] for name in Job.__dataclass_fields__]
_select = select(*_columns)

# Made once, for an idle worker asks them all the time.
_known = _job.kind.in_(bindparam("kinds", expanding=True))
_waiting = and_(_job.status == QUEUED, _job.run_after <= bindparam("now"), _job.cancel_requested.is_(False), _known)
_lapsed = and_(_job.status == RUNNING, _job.lease_until < bindparam("now"), _known)
_dropped = and_(_job.status == QUEUED, _job.cancel_requested, _known)
_any_waiting = select(exists().where(_waiting))
_any_abandoned = select(exists().where(or_(_lapsed, _dropped)))
_first_waiting = (
    select(_job.id).where(_waiting).order_by(_job.run_after, _job.id).limit(1).with_for_update(skip_locked=True)
)
_abandoned = (
    _select.where(or_(_lapsed, _dropped)).order_by(_job.id).limit(ABANDONED_BATCH).with_for_update(skip_locked=True)
)


def enqueue(
    tx: Connection,
    kind: str,
    resource_arn: str,
    payload: dict[str, Any],
    *,
    now: datetime,
    max_attempts: int,
) -> int:
    """Add a job for a resource that this transaction can see; the job's id. It runs once this transaction commits."""
    values: dict[str, Any] = {"kind": kind, "resource_arn": resource_arn, "payload": payload}
    values |= {"status": QUEUED, "attempt": 0, "crashes": 0, "max_attempts": max_attempts}
    values |= {"progress": 0.0, "progress_text": "", "cancel_requested": False}
    statement = insert(schema.job).values(**values, created=now, run_after=now).returning(_job.id)
    job_id: int = tx.execute(statement).scalar_one()
    return job_id


def ready(tx: Connection, kinds: Collection[str], now: datetime) -> bool:
    """Whether `claim` would find a job; needs no write lock."""
    return bool(tx.scalar(_any_waiting, {"kinds": list(kinds), "now": now}))


def claim(tx: Connection, worker: str, kinds: Collection[str], now: datetime, lease_seconds: float) -> Job | None:
    """Take the job that has waited longest, under the next attempt number. One caller gets it, the others the next."""
    job_id = tx.scalar(_first_waiting, {"kinds": list(kinds), "now": now})
    if job_id is None:
        return None
    statement = update(schema.job).where(_job.id == job_id).values(
        status=RUNNING,
        attempt=_job.attempt + 1,
        worker=worker,
        lease_until=now + timedelta(seconds=lease_seconds),
        started=now,
    )  # fmt: skip
    return Job(*tx.execute(statement.returning(*_columns)).one())


def renew(tx: Connection, job: Job, now: datetime, lease_seconds: float) -> bool:
    """Prolong the lease; False when the job is no longer the caller's or is to be cancelled."""
    return _change(tx, job, lease_until=now + timedelta(seconds=lease_seconds))


def live(tx: Connection, jobs: Collection[Job]) -> set[int]:
    """Ids of those among `jobs` that still run the same attempt and are not to be cancelled."""
    attempts = {job.id: job.attempt for job in jobs}
    statement = select(_job.id, _job.attempt).where(
        _job.id.in_(list(attempts)), _job.status == RUNNING, _job.cancel_requested.is_(False)
    )  # fmt: skip
    return {row.id for row in tx.execute(statement) if attempts[row.id] == row.attempt}


def report(tx: Connection, job: Job, **facts: Any) -> None:
    """Store `checkpoint` (JSON) or `progress` (0 to 1) and `progress_text`. Raises Fenced."""
    if "progress_text" in facts:
        facts["progress_text"] = _storable(facts["progress_text"])
    if not _change(tx, job, **facts):
        raise Fenced(f"job {job.id} is no longer at attempt {job.attempt}.")


def finish(tx: Connection, job: Job, now: datetime) -> None:
    """The job is done. Raises Fenced; call it first in the transaction that makes its result visible."""
    if not _change(tx, job, **_end(DONE, now), progress=1.0):
        raise Fenced(f"job {job.id} is no longer at attempt {job.attempt}.")


def fail(tx: Connection, job: Job, error: str, now: datetime, *, even_cancelled: bool = True) -> bool:
    """The job failed for good, or was cancelled; False when it is no longer at that attempt.

    `error` is for the operator: no caller of the API sees it.
    """
    return _change(tx, job, even_cancelled=even_cancelled, **_end(FAILED, now), error=_storable(error))


def give_back(tx: Connection, job: Job, *, run_after: datetime, crashed: bool, error: str | None = None) -> bool:
    """Let the job be claimed again from `run_after` on; False when it is no longer at that attempt."""
    values: dict[str, Any] = {"status": QUEUED, "worker": None, "lease_until": None, "run_after": run_after}
    values |= {"crashes": _job.crashes + 1, "error": error and _storable(error)} if crashed else {}
    return _change(tx, job, even_cancelled=True, **values)


def abandoned(tx: Connection, kinds: Collection[str], now: datetime) -> list[Job]:
    """Jobs that nobody will end: the lease ran out, or they were cancelled while they waited. Locks their rows."""
    return [Job(*row) for row in tx.execute(_abandoned, {"kinds": list(kinds), "now": now})]


def any_abandoned(tx: Connection, kinds: Collection[str], now: datetime) -> bool:
    """Whether `abandoned` would find a job; needs no write lock."""
    return bool(tx.scalar(_any_abandoned, {"kinds": list(kinds), "now": now}))


def get(tx: Connection, job_id: int) -> Job | None:
    """The job as it is now; None when it was deleted."""
    row = tx.execute(_select.where(_job.id == job_id)).one_or_none()
    return None if row is None else Job(*row)


def of(tx: Connection, resource_arn: str) -> Job | None:
    """The newest job of a resource; None when it has none."""
    statement = _select.where(_job.resource_arn == resource_arn).order_by(_job.id.desc()).limit(1)
    row = tx.execute(statement).one_or_none()
    return None if row is None else Job(*row)


def cancel(tx: Connection, resource_arn: str) -> bool:
    """Ask for the end of the resource's unfinished jobs; whether there were any.

    A worker kills the job and then calls its kind's `failed` with the status code CANCELLED.
    """
    unfinished = and_(_job.resource_arn == resource_arn, _job.status.in_([QUEUED, RUNNING]))
    return tx.execute(update(schema.job).where(unfinished).values(cancel_requested=True)).rowcount > 0


def forget(tx: Connection, resource_arn: str) -> list[int]:
    """Delete the resource's jobs and return their ids; a running one is killed, and `sweep` removes the files.

    Call it before `resources.delete`: a finishing job, too, locks its own row before its resource's.
    """
    statement = delete(schema.job).where(_job.resource_arn == resource_arn).returning(_job.id)
    return list(tx.scalars(statement))


def _end(status: str, now: datetime) -> dict[str, Any]:
    return {"status": status, "ended": now, "worker": None, "lease_until": None}


def _change(tx: Connection, job: Job, *, even_cancelled: bool = False, **values: Any) -> bool:
    this_attempt = and_(_job.id == job.id, _job.attempt == job.attempt, _job.status == job.status)
    if not even_cancelled:
        this_attempt = and_(this_attempt, _job.cancel_requested.is_(False))
    return tx.execute(update(schema.job).where(this_attempt).values(**values)).rowcount == 1


def _storable(text: str) -> str:
    # What a job prints or raises may hold what PostgreSQL's text cannot: NUL and half characters.
    return text.replace("\0", "").encode(errors="replace").decode()
