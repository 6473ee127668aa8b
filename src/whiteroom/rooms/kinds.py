"""The kinds of resource, one entry each; Get and List of a kind derive from its entry.

To add a kind: an entry here, its state machine in `states`, a module with its verbs.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from whiteroom.rooms import paging
from whiteroom.rooms.access import own_account
from whiteroom.rooms.states import CREATING
from whiteroom.store import accounts, resources
from whiteroom.store.resources import Listed, Missing, NameTaken, Resource, Scope
from whiteroom.wire.errors import conflict, not_found, quota_exceeded
from whiteroom.wire.service import operation

if TYPE_CHECKING:
    from whiteroom.wire.service import Call


@dataclass(frozen=True)
class Kind:
    """How one kind of resource is named and shown.

    name : the segment of its ARN and the kind in the store, "training-dataset".
    noun : what its operations are called after, "TrainingDataset".
    summary : members of its body in an entry of its List, beside the description.
    timestamps : members of the body that are points in time.
    """

    name: str
    noun: str
    summary: tuple[str, ...] = ()
    timestamps: tuple[str, ...] = ()

    @property
    def member(self) -> str:
        """`trainingDataset`, the stem of its members."""
        return self.noun[0].lower() + self.noun[1:]

    @cached_property
    def arn_member(self) -> str:
        return self.member + "Arn"

    @property
    def words(self) -> str:
        """`training dataset`, for sentences."""
        return self.name.replace("-", " ")

    def new_arn(self, region: str, account: str) -> str:
        return f"arn:aws:cleanrooms-ml:{region}:{account}:{self.name}/{uuid.uuid4()}"

    def document(self, resource: Resource) -> dict[str, Any]:
        """What Get answers."""
        body = dict(resource.body)
        for member in self.timestamps:
            if member in body:
                body[member] = datetime.fromisoformat(body[member])
        return {**self._head(resource), **body}

    def entry(self, resource: Listed) -> dict[str, Any]:
        """What List shows of it."""
        body, entry = resource.body, self._head(resource)
        for member in self._shown:
            if member in body:
                entry[member] = body[member]
        return entry

    def _head(self, resource: Resource | Listed) -> dict[str, Any]:
        return {
            "createTime": resource.created,
            "updateTime": resource.updated,
            self.arn_member: resource.arn,
            "name": resource.name,
            "status": resource.status,
        }

    @cached_property
    def _shown(self) -> tuple[str, ...]:
        return ("description", *self.summary)


TRAINING_DATASET = Kind("training-dataset", "TrainingDataset")
AUDIENCE_MODEL = Kind(
    "audience-model",
    "AudienceModel",
    summary=("trainingDatasetArn",),
    timestamps=("trainingDataStartTime", "trainingDataEndTime"),
)
CONFIGURED_AUDIENCE_MODEL = Kind(
    "configured-audience-model", "ConfiguredAudienceModel", summary=("audienceModelArn", "outputConfig")
)
AUDIENCE_GENERATION_JOB = Kind(
    "audience-generation-job",
    "AudienceGenerationJob",
    summary=("configuredAudienceModelArn", "collaborationId", "startedBy"),
)
AUDIENCE_EXPORT_JOB = Kind(
    "audience-export-job",
    "AudienceExportJob",
    summary=("audienceGenerationJobArn", "audienceSize", "statusDetails", "outputLocation"),
)

TAGGABLE = {
    kind.name: kind for kind in (TRAINING_DATASET, AUDIENCE_MODEL, CONFIGURED_AUDIENCE_MODEL, AUDIENCE_GENERATION_JOB)
}


def kind_name(arn: str) -> str:
    """The name of the kind that an ARN is of, "training-dataset"; the service model's pattern has accepted it."""
    return arn.split(":", 5)[5].split("/", 1)[0]


def picked(request: dict[str, Any], *members: str) -> dict[str, Any]:
    """Those members of a request that it has."""
    return {member: request[member] for member in members if member in request}


def serve_get(kind: Kind) -> None:
    """Register `Get<Noun>`."""

    @operation("cleanroomsml", f"Get{kind.noun}", scope=own_account)
    def get(call: Call, request: dict[str, Any]) -> dict[str, Any]:
        return kind.document(find(call, kind, request[kind.arn_member]))


def serve_list(kind: Kind) -> None:
    """Register `List<Noun>s` without filters."""

    @operation("cleanroomsml", f"List{kind.noun}s", scope=own_account)
    def list_(call: Call, request: dict[str, Any]) -> dict[str, Any]:
        rows, more = paging.page(call, request, kind.name)
        return {f"{kind.member}s": [kind.entry(row) for row in rows], **more}


def find(call: Call, kind: Kind, arn: str) -> Resource:
    """The caller's own resource. Raises ResourceNotFoundException, also for one that is somebody else's."""
    scope: Scope = call.scope
    try:
        return resources.load(call.tx, scope, kind.name, arn)
    except Missing as error:
        raise not_found(f"There is no {kind.words} {arn} in your account and this Region.") from error


def create(
    call: Call,
    kind: Kind,
    *,
    name: str,
    body: dict[str, Any],
    status: str = "ACTIVE",
    parent: str | None = None,
    arn: str | None = None,
    account: str | None = None,
) -> Resource:
    """Insert a resource whose name is unique for its kind, account and Region.

    `account` is the caller's unless it is given; in another's view a name need not be unique, so that no
    conflict tells the caller what others have.

    Raises
    ------
    ConflictException : the name is taken.
    """
    account = account or call.caller.account
    try:
        return resources.insert(
            call.tx,
            arn=arn or kind.new_arn(call.caller.region, account),
            kind=kind.name,
            account=account,
            region=call.caller.region,
            name=name,
            status=status,
            parent=parent,
            collaboration=body.get("collaborationId"),
            body=body,
            private={},
            unique_name=name if account == call.caller.account else None,
            now=call.now,
        )
    except NameTaken as error:
        raise conflict(
            f"Your account already has {_article(kind.words)} {kind.words} named {name!r} in this Region. "
            "Choose another name, or delete that one first."
        ) from error


def require_room_for_one(call: Call, kind: Kind, quota_name: str, quota: int) -> None:
    """Raises ServiceQuotaExceededException when the account already holds `quota` of the kind."""
    accounts.lock(call.tx, call.caller.account)
    if resources.count(call.tx, call.scope, kind.name) >= quota:
        raise quota_exceeded(
            f"Your account has {quota} {kind.words}s, the most it may have. Delete one first.",
            quota_name,
            quota,
        )


def require_room_for_pending(call: Call, kind: Kind, quota_name: str, quota: int) -> None:
    """Raises ServiceQuotaExceededException when `quota` of the kind are being created."""
    accounts.lock(call.tx, call.caller.account)
    if resources.count(call.tx, call.scope, kind.name, statuses=CREATING) >= quota:
        raise quota_exceeded(
            f"{quota} {kind.words}s of your account are being created, the most at one time. Wait for one to end.",
            quota_name,
            quota,
        )


def require_no_children(tx: Connection, kind: Kind, resource: Resource, child: Kind) -> None:
    """Raises ConflictException while another resource depends on this one."""
    if resources.has_children(tx, resource.arn):
        raise conflict(
            f"The {kind.words} {resource.arn} is in use: another resource depends on it. "
            f"Delete every {child.words} made from it first."
        )


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"
