"""The files that a job leaves for later: where they lie and how they are encrypted.

Each attempt writes a directory of its own. The resource's `private["artifact"]` names the one that its
finishing transaction chose, so a half-written or doubled result is never read.
"""

from __future__ import annotations

import base64
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whiteroom.data.keys import open_encrypted
from whiteroom.jobs.kinds import JobError
from whiteroom.jobs.sweep import attempt_directory

if TYPE_CHECKING:
    import pyarrow as pa

    from whiteroom.jobs.kinds import Work
    from whiteroom.rooms.room import Room

Opener = Callable[[Path, str], Any] | None
"""(path, mode "rb" or "wb") -> binary file object; None for plain files, which can be memory-mapped."""
Facts = dict[str, Any]

_AUDIENCE = "audience.arrow"
_USERS_PER_BATCH = 100_000


def new(work: Work, kms_key_arn: str | None) -> tuple[Facts, Opener]:
    """The facts by which this attempt's files are found and read later, and how to write them.

    Raises DataError when the key ring cannot be used.
    """
    facts: Facts = {"job": work.job.id, "attempt": work.job.attempt}
    if kms_key_arn is None:
        return facts, None
    room: Room = work.context
    key, wrapped = room.ring.new_data_key(kms_key_arn)
    return facts | {"kmsKeyArn": kms_key_arn, "wrappedKey": base64.b64encode(wrapped).decode()}, _encrypted(key)


def opener(room: Room, facts: Facts) -> Opener:
    """How to read them. Raises DataError KEY_UNAVAILABLE when the key that they were encrypted with is gone."""
    if "kmsKeyArn" not in facts:
        return None
    return _encrypted(room.ring.unwrap(facts["kmsKeyArn"], base64.b64decode(facts["wrappedKey"])))


def directory(room: Room, facts: Facts) -> Path:
    """Where they lie, by the facts that `new` gave."""
    return attempt_directory(room.settings.data_dir, facts["job"], facts["attempt"])


@contextmanager
def room_on_disk() -> Iterator[None]:
    """A full disk ends the job at once, with a code that says so: to try again would not help."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise JobError("STORAGE_FULL", "The server's disk has no room left for the result.") from error


def write_users(into: Path, users: pa.Array, open_file: Opener) -> None:
    """Keep an audience, best user first."""
    import pyarrow as pa

    table = pa.table({"user_id": users})
    with _open(open_file, into / _AUDIENCE, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=_USERS_PER_BATCH)


def read_users(room: Room, facts: Facts, count: int) -> list[str]:
    """The first `count` users of a kept audience, or all where there are fewer."""
    import pyarrow as pa

    users: list[str] = []
    with _open(opener(room, facts), directory(room, facts) / _AUDIENCE, "rb") as file:
        for batch in pa.ipc.open_stream(file):
            users += batch.column(0)[: count - len(users)].to_pylist()
            if len(users) == count:
                break
    return users


def _open(open_file: Opener, path: Path, mode: str) -> Any:
    return open_file(path, mode) if open_file else path.open(mode)


def _encrypted(key: bytes) -> Opener:
    def open_(path: Path, mode: str) -> Any:
        return open_encrypted(path, mode, key)

    return open_
