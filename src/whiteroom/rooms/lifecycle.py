"""What the jobs of all kinds share: the steps at their start, their failure and their deletion.

A job's payload names under `arns` the resources it moves: one, or the two copies of a cross-account execution,
which always change in one transaction.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from whiteroom.jobs import queue
from whiteroom.jobs.kinds import Failure, JobKind, Outcome, Work
from whiteroom.jobs.queue import Job
from whiteroom.rooms import artifacts, kinds
from whiteroom.rooms.kinds import AUDIENCE_EXPORT_JOB
from whiteroom.rooms.states import CREATING, DELETING, move
from whiteroom.store import resources
from whiteroom.store.resources import Resource, Scope
from whiteroom.wire.errors import conflict

if TYPE_CHECKING:
    from whiteroom.rooms.room import Room
    from whiteroom.wire.service import Call

Details = Callable[[Resource, Job, Failure], Failure]
"""What the account of one of the job's resources may read of the failure."""


def submit(call: Call, kind: str, payload: dict[str, Any], *arns: str) -> None:
    """Put a job for these resources into the caller's transaction, so that both are kept or neither."""
    room: Room = call.context
    queue.enqueue(
        call.tx,
        kind,
        arns[0],
        {"arns": list(arns), **payload},
        now=call.now,
        max_attempts=room.settings.max_attempts,
    )


def moved(tx: Connection, job: Job) -> list[Resource]:
    """The resources that a job moves, whichever accounts hold them."""
    scope = Scope.service(why=f"job {job.kind} moves every copy of its resource")
    return [resources.load(tx, scope, kinds.kind_name(arn), arn) for arn in job.payload["arns"]]


def started(tx: Connection, job: Job, now: datetime) -> None:
    """The `JobKind.started` of whatever is created."""
    for resource in moved(tx, job):
        move(tx, resource, "CREATE_IN_PROGRESS", now=now)


def failed(details: Details = lambda _resource, _job, failure: failure) -> Callable[..., None]:
    """The `JobKind.failed` that ends in CREATE_FAILED; `details` decides what each copy's account reads."""

    def fail(tx: Connection, job: Job, failure: Failure, now: datetime) -> None:
        for resource in moved(tx, job):
            told = details(resource, job, failure)
            status_details = {"statusCode": told.status_code, "message": told.message}
            move(tx, resource, "CREATE_FAILED", now=now, body=resource.body | {"statusDetails": status_details})

    return fail


def require_deletable(words: str, resource: Resource) -> bool:
    """True when a deletion must be started, False when one is under way.

    Raises
    ------
    ConflictException : the resource is being created.
    """
    if resource.status in CREATING:
        raise conflict(
            f"The {words} {resource.arn} is {resource.status} and cannot be deleted yet. "
            "Delete it once it is ACTIVE or CREATE_FAILED."
        )
    return resource.status not in DELETING


def _delete_started(tx: Connection, job: Job, now: datetime) -> None:
    for resource in moved(tx, job):
        move(tx, resource, "DELETE_IN_PROGRESS", now=now)


def _delete(work: Work) -> Outcome:
    """Files first, rows after: a crash in between leaves a resource that is still being deleted."""
    room: Room = work.context
    with room.database.read() as tx:
        for resource in moved(tx, work.job):
            if "artifact" in resource.private:
                shutil.rmtree(artifacts.directory(room, resource.private["artifact"]), ignore_errors=True)

    def apply(tx: Connection, _now: datetime) -> None:
        everyone = Scope.service(why="what hangs on a deleted resource goes with it")
        for resource in moved(tx, work.job):
            while exports := resources.page(tx, everyone, AUDIENCE_EXPORT_JOB.name, limit=100, parent=resource.arn):
                for export in exports:
                    queue.forget(tx, export.arn)
                    resources.delete(tx, export)
            resources.delete(tx, resource)

    return apply


def _delete_failed(tx: Connection, job: Job, failure: Failure, now: datetime) -> None:
    status_details = {"statusCode": failure.status_code, "message": failure.message}
    for resource in moved(tx, job):
        move(tx, resource, "DELETE_FAILED", now=now, body=resource.body | {"statusDetails": status_details})


DELETE = JobKind(name="delete", started=_delete_started, run=_delete, failed=_delete_failed)
