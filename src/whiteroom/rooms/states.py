"""The state machines: which status may follow which, for each kind of resource.

The names are those of the service model's enums; a test compares them. Every change of status goes
through `move`, so that no resource takes a step that is not listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from whiteroom.store import resources
from whiteroom.store.resources import Resource

Steps = Mapping[str, frozenset[str]]

_CREATION: Steps = {
    "CREATE_PENDING": frozenset({"CREATE_IN_PROGRESS", "CREATE_FAILED"}),
    "CREATE_IN_PROGRESS": frozenset({"ACTIVE", "CREATE_FAILED"}),
    "CREATE_FAILED": frozenset(),
    "ACTIVE": frozenset(),
}
_CREATION_AND_DELETION: Steps = {
    **_CREATION,
    "CREATE_FAILED": frozenset({"DELETE_PENDING"}),
    "ACTIVE": frozenset({"DELETE_PENDING"}),
    "DELETE_PENDING": frozenset({"DELETE_IN_PROGRESS", "DELETE_FAILED"}),
    "DELETE_IN_PROGRESS": frozenset({"DELETE_FAILED"}),
    "DELETE_FAILED": frozenset({"DELETE_PENDING"}),
}
_METADATA: Steps = {"ACTIVE": frozenset()}

STATES: Mapping[str, Steps] = {
    "training-dataset": _METADATA,
    "audience-model": _CREATION_AND_DELETION,
    "configured-audience-model": _METADATA,
    "audience-generation-job": _CREATION_AND_DELETION,
    "audience-export-job": _CREATION,
}

CREATING = ("CREATE_PENDING", "CREATE_IN_PROGRESS")
DELETING = ("DELETE_PENDING", "DELETE_IN_PROGRESS")


class WrongStep(Exception):
    """A change of status that the kind's state machine does not have: an error of ours, never of a caller."""


def move(tx: Connection, resource: Resource, to: str, *, now: datetime, **facts: Any) -> Resource:
    """Take one step; a resource that is there already stays there, so that a retried job may repeat it.

    `facts` are `body` and `private`, as `store.resources.update` takes them.

    Raises
    ------
    WrongStep : the step is not in the kind's state machine.
    store.resources.Stale : somebody else changed the resource in the meantime.
    """
    if resource.status != to and to not in STATES[resource.kind][resource.status]:
        raise WrongStep(f"{resource.kind} cannot go from {resource.status} to {to}.")
    return resources.update(tx, resource, now=now, status=to, **facts)
