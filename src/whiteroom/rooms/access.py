"""Who may do what: every rule about accounts, roles and buckets stands here.

A refusal says to the caller no more than the caller may know; the reason that only the data owner may read
goes into the audit table (`recorder`). A resource of another account and one that does not exist look alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from whiteroom.store import audit, buckets
from whiteroom.store.resources import Scope
from whiteroom.wire.errors import ApiError, access_denied, validation

if TYPE_CHECKING:
    from whiteroom.rooms.room import Room
    from whiteroom.store.database import Database
    from whiteroom.wire.service import Call

_ARN_ACCOUNT = re.compile(r"arn:[^:]*:[^:]*:[^:]*:([0-9]{12}):")


class Denial(ApiError):
    """An AccessDeniedException about another account's resource: `audit` is for that `owner` to read."""

    def __init__(self, message: str, *, audit: str, owner: str, resource: str) -> None:
        super().__init__("AccessDeniedException", message, audit=audit)
        self.owner = owner
        self.resource = resource


def own_account(call: Call) -> Scope:
    """The scope of almost every operation: what the caller's account owns in the region it speaks to."""
    return Scope.of(call.caller.account, call.caller.region)


def account_of(arn: str) -> str:
    """The twelve digits of an ARN that the service model's pattern has already accepted."""
    match = _ARN_ACCOUNT.match(arn)
    if match is None:
        raise validation(f"{arn!r} names no account.")
    return match[1]


def require_own_role(call: Call, role_arn: str) -> None:
    """A role acts for its own account only (CreateTrainingDataset, `roleArn`: else AccessDeniedException)."""
    if account_of(role_arn) != call.caller.account:
        raise access_denied(
            f"The role {role_arn} does not belong to your account {call.caller.account}; "
            "pass a role of your own account.",
            audit="role of another account",
        )


def require_own_key(call: Call, kms_key_arn: str) -> None:
    """A key encrypts for its own account only. Raises AccessDeniedException."""
    if account_of(kms_key_arn) != call.caller.account:
        raise access_denied(
            f"The key {kms_key_arn} does not belong to your account {call.caller.account}; "
            "pass a key of your own account.",
            audit="KMS key of another account",
        )


def require_own_location(call: Call, role_arn: str, s3_uri: str) -> None:
    """The role is the caller's, and the bucket is one that the role's account owns."""
    from whiteroom.data.files import parse_s3_uri

    require_own_role(call, role_arn)
    try:
        bucket, _ = parse_s3_uri(s3_uri)
    except ValueError as error:
        raise validation(str(error)) from error
    if _bucket_owner(call, bucket) != call.caller.account:
        raise access_denied(
            f"The role {role_arn} has no access to the bucket {bucket!r}. It reaches the buckets of account "
            f"{call.caller.account} only; `whiteroom bucket create` registers one.",
            audit="bucket missing or of another account",
        )


def _bucket_owner(call: Call, bucket: str) -> str | None:
    """The owner; a bucket that the caller made through the S3 endpoint and nobody owns becomes the caller's."""
    owner = buckets.owner(call.tx, bucket)
    room: Room = call.context
    if owner is None and room.files.storage.has_bucket(call.caller.account, bucket):
        with suppress(buckets.BucketTaken):  # somebody was quicker
            buckets.create(call.tx, bucket, call.caller.account, call.now)
        return buckets.owner(call.tx, bucket)
    return owner


def recorder(database: Database) -> Callable[[Call, ApiError], None]:
    """What `wire.Service` calls after a refusal has been rolled back: keep it where its reason can be read."""

    def record(call: Call, error: ApiError) -> None:
        about = error if isinstance(error, Denial) else None
        with database.write() as tx:
            audit.record(
                tx,
                now=call.now,
                account=about.owner if about else call.caller.account,
                operation=f"{call.service}:{call.operation}",
                resource=about.resource if about else None,
                allowed=False,
                reason=error.audit or error.message,
                detail={"caller": call.caller.account},
            )

    return record
