"""Pages of a list, newest first, behind opaque tokens.

A token is the sequence number of the last row seen, sealed under the server key together with the account,
region, operation and filters it was given out for. It survives inserts and deletes between two pages, and a
token that was altered, or taken from another list, does not open.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from whiteroom.data.errors import DataError
from whiteroom.store import resources
from whiteroom.store.resources import Listed
from whiteroom.wire.errors import validation

if TYPE_CHECKING:
    from whiteroom.rooms.room import Room
    from whiteroom.wire.service import Call

DEFAULT_PAGE_SIZE = 100


def page(call: Call, request: dict[str, Any], kind: str, **filters: str | None) -> tuple[list[Listed], dict[str, str]]:
    """One page of the caller's resources and, while more follow, `{"nextToken": ...}`.

    `filters` are passed on to `store.resources.page`.
    """
    limit = request.get("maxResults", DEFAULT_PAGE_SIZE)
    context = repr((call.service, call.operation, call.caller.account, call.caller.region, sorted(filters.items())))
    room: Room = call.context
    before = _open(room, request["nextToken"], context) if "nextToken" in request else None
    rows = resources.page(call.tx, call.scope, kind, limit=limit + 1, before=before, **filters)
    if len(rows) <= limit:
        return rows, {}
    sealed = room.secrets.seal(str(rows[limit - 1].sequence).encode(), context=context.encode())
    return rows[:limit], {"nextToken": base64.urlsafe_b64encode(sealed).decode()}


def _open(room: Room, token: str, context: str) -> int:
    try:
        sealed = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        return int(room.secrets.open(sealed, context=context.encode()))
    except (binascii.Error, UnicodeEncodeError, DataError) as error:
        raise validation(
            "The nextToken is not one that this list gave out. Pass the token of the page before, with the same "
            "filters, or none to start over."
        ) from error
