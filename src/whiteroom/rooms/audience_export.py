"""Audience export jobs: one of the configured sizes of a ranking, written to the owner's bucket.

Either account may start one, each on its own copy of the generation job. The users go to the owner's bucket
only, and only the owner's record of the export says where they lie. An export has no ARN of its own on the
wire; the one in the store is ours.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from whiteroom.data.errors import DataError
from whiteroom.jobs.kinds import Failure, JobError, JobKind, Outcome, Work
from whiteroom.jobs.queue import Job
from whiteroom.rooms import access, artifacts, kinds, lifecycle, paging
from whiteroom.rooms.audience_generation import copies, size_in_users
from whiteroom.rooms.kinds import AUDIENCE_EXPORT_JOB, AUDIENCE_GENERATION_JOB, CONFIGURED_AUDIENCE_MODEL
from whiteroom.rooms.states import CREATING, move
from whiteroom.store import resources
from whiteroom.store.resources import Resource, Scope
from whiteroom.wire.errors import conflict, quota_exceeded, validation
from whiteroom.wire.service import operation

if TYPE_CHECKING:
    from whiteroom.rooms.room import Room
    from whiteroom.wire.service import Call

IDS_PER_CHUNK = 50_000
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@operation("cleanroomsml", "StartAudienceExportJob", scope=access.own_account)
def start_audience_export_job(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    job = kinds.find(call, AUDIENCE_GENERATION_JOB, request["audienceGenerationJobArn"])
    if job.status != "ACTIVE":
        raise conflict(f"The audience generation job {job.arn} is {job.status}; it must be ACTIVE.")
    size = request["audienceSize"]
    bins = job.private["sizes"]
    if size["type"] != bins["audienceSizeType"] or size["value"] not in bins["audienceSizeBins"]:
        raise validation(
            f"audienceSize must be one of the job's bins: {bins['audienceSizeType']} "
            f"{', '.join(map(str, sorted(bins['audienceSizeBins'])))}."
        )
    _check_quotas(call, job)
    owner = _output_owner(call, job)
    arns = _records(call, request, job, owner.account)
    output = owner.body["outputConfig"]["destination"]["s3Destination"]["s3Uri"].rstrip("/")
    segment = _segment(call.caller.account, owner.account, request["name"])
    payload = {
        "owner": owner.account,
        "startedBy": call.caller.account,
        "artifact": job.private["artifact"],
        "users": size_in_users(size["type"], size["value"], job.private["users"]),
        "location": f"{output}/{job.arn.rsplit('/', 1)[1]}/{segment}",
    }
    lifecycle.submit(call, CREATE.name, payload, *arns)
    return {}


@operation("cleanroomsml", "ListAudienceExportJobs", scope=access.own_account)
def list_audience_export_jobs(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    parent = request.get("audienceGenerationJobArn")
    rows, more = paging.page(call, request, AUDIENCE_EXPORT_JOB.name, parent=parent)
    entries = [AUDIENCE_EXPORT_JOB.entry(row) for row in rows]
    for entry in entries:
        del entry[AUDIENCE_EXPORT_JOB.arn_member]  # ours; the model has none
    return {"audienceExportJobs": entries, **more}


def _records(call: Call, request: dict[str, Any], job: Resource, owner: str) -> list[str]:
    """The starter's record of the export, and the owner's where that is another account; their ARNs."""
    arns = []
    for generation_arn in dict.fromkeys((job.arn, *(arn for arn in copies(job) if access.account_of(arn) == owner))):
        account = access.account_of(generation_arn)
        body = {"audienceGenerationJobArn": generation_arn, "audienceSize": request["audienceSize"]}
        export = kinds.create(
            call,
            AUDIENCE_EXPORT_JOB,
            name=request["name"] if account == call.caller.account else f"{call.caller.account}-{request['name']}",
            body=body | kinds.picked(request, "description"),
            status="CREATE_PENDING",
            parent=generation_arn,
            account=account,
        )
        arns.append(export.arn)
    return arns


def _segment(starter: str, owner: str, name: str) -> str:
    """The export's own segment of a path: the name where it is plain and the owner's, else with a digest.

    So no name that the starter chooses is one that the owner gave to an export of its own.
    """
    if starter == owner and _PLAIN_NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    digest = hashlib.sha256(f"{starter}/{name}".encode()).hexdigest()[:12]
    return "-".join(part for part in (starter if starter != owner else "", plain or "export", digest) if part)


def _output_owner(call: Call, job: Resource) -> Resource:
    """The configured audience model, whose owner's bucket receives the users."""
    scope = Scope.service(why="an export goes where the model's owner configured")
    return resources.load(call.tx, scope, CONFIGURED_AUDIENCE_MODEL.name, job.body["configuredAudienceModelArn"])


def _check_quotas(call: Call, job: Resource) -> None:
    limits = call.context.limits
    kinds.require_room_for_pending(
        call, AUDIENCE_EXPORT_JOB, "Pending audience export jobs", limits.max_pending_export_jobs
    )
    statuses = (*CREATING, "ACTIVE")
    here = resources.count(call.tx, call.scope, AUDIENCE_EXPORT_JOB.name, statuses=statuses, parent=job.arn)
    if here >= limits.max_exports_per_job:
        raise quota_exceeded(
            f"The job {job.arn} has {here} exports, the most it may have.",
            "Active audience export jobs per audience generation job",
            limits.max_exports_per_job,
        )


# --- the job -------------------------------------------------------------------------------------------


def export(work: Work) -> Outcome:
    """Write the first users of the ranking, best first, and then `_SUCCESS`."""
    room: Room = work.context
    payload = work.job.payload
    file_format = room.settings.export_format
    try:
        users = artifacts.read_users(room, payload["artifact"], payload["users"])
        if len(users) < room.limits.min_export_users:
            # How many they are is not said: it would tell how many users the model has, or the seed matched.
            raise JobError(
                "AUDIENCE_SIZE_BELOW_MINIMUM",
                f"The audience would hold fewer than {room.limits.min_export_users} users, the fewest that are "
                "exported at once. Choose a larger size.",
            )
        files = room.files.as_account(payload["owner"])
        chunks = _csv(users) if file_format == "csv" else _json_lines(users)
        files.write(f"{payload['location']}/part-00000.{file_format}", chunks)
        files.write(f"{payload['location']}/_SUCCESS", [])
    except DataError as error:
        raise JobError(error.status_code, error.message) from error

    def activate(tx: Connection, now: datetime) -> None:
        for copy in lifecycle.moved(tx, work.job):
            seen = {"outputLocation": payload["location"]} if copy.account == payload["owner"] else {}
            move(tx, copy, "ACTIVE", now=now, body=copy.body | seen)

    return activate


def _failure_for(copy: Resource, job: Job, failure: Failure) -> Failure:
    """Where the owner's output goes, and why not, is the owner's affair."""
    if copy.account == job.payload["owner"] or failure.status_code == "AUDIENCE_SIZE_BELOW_MINIMUM":
        return failure
    return Failure(failure.status_code, "The export could not be delivered; the model's owner sees why.")


CREATE = JobKind(
    name="audience-export-job", started=lifecycle.started, run=export, failed=lifecycle.failed(_failure_for)
)


def _json_lines(users: list[str]) -> Iterator[bytes]:
    for start in range(0, len(users), IDS_PER_CHUNK):
        chunk = users[start : start + IDS_PER_CHUNK]
        yield "".join(json.dumps({"user_id": user}, ensure_ascii=False) + "\n" for user in chunk).encode()


def _csv(users: list[str]) -> Iterator[bytes]:
    yield b"user_id\n"
    for start in range(0, len(users), IDS_PER_CHUNK):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([user] for user in users[start : start + IDS_PER_CHUNK])
        yield text.getvalue().encode()
