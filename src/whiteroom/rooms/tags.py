"""Tags: their rules, and the three tag operations for every kind that has an ARN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whiteroom.rooms import kinds
from whiteroom.rooms.access import own_account
from whiteroom.store import resources
from whiteroom.store.resources import Resource
from whiteroom.wire.errors import not_found, validation
from whiteroom.wire.service import operation

if TYPE_CHECKING:
    from whiteroom.wire.service import Call

MOST_TAGS = 50  # TagResource, docstring of `tags`; the shape's own maximum of 200 never applies


def of(request: dict[str, Any]) -> dict[str, dict[str, str]]:
    """`{"tags": ...}` as a body holds them, checked; empty where the request has none.

    Raises
    ------
    ValidationException : more than 50 tags, or a key that AWS reserves.
    """
    tags: dict[str, str] = request.get("tags") or {}
    _check(tags, given=tags)
    return {"tags": tags} if tags else {}


def _check(tags: dict[str, str], given: dict[str, str]) -> None:
    if len(tags) > MOST_TAGS:
        raise validation(f"A resource has at most {MOST_TAGS} tags; this would make {len(tags)}.")
    for key in given:
        if not 1 <= len(key) <= 128:
            raise validation("A tag key has 1 to 128 characters.")
        if key.lower().startswith("aws:"):
            raise validation(f"The tag key {key!r} begins with 'aws:', which is reserved.")


def _tagged(call: Call, arn: str) -> Resource:
    kind = kinds.TAGGABLE.get(kinds.kind_name(arn))
    if kind is None:
        raise not_found(f"There is no resource {arn} in your account and this Region.")
    return kinds.find(call, kind, arn)


def _put(call: Call, resource: Resource, tags: dict[str, str]) -> None:
    body = {k: v for k, v in resource.body.items() if k != "tags"} | ({"tags": tags} if tags else {})
    resources.update(call.tx, resource, now=call.now, body=body)


@operation("cleanroomsml", "TagResource", scope=own_account)
def tag_resource(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    resource = _tagged(call, request["resourceArn"])
    tags = resource.body.get("tags", {}) | request["tags"]
    _check(tags, given=request["tags"])
    _put(call, resource, tags)
    return {}


@operation("cleanroomsml", "UntagResource", scope=own_account)
def untag_resource(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    resource = _tagged(call, request["resourceArn"])
    gone = set(request["tagKeys"])
    _put(call, resource, {k: v for k, v in resource.body.get("tags", {}).items() if k not in gone})
    return {}


@operation("cleanroomsml", "ListTagsForResource", scope=own_account)
def list_tags_for_resource(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    return {"tags": _tagged(call, request["resourceArn"]).body.get("tags", {})}
