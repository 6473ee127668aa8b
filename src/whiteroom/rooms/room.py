"""What every operation and every job of the clean room works with, put together once by `whiteroom.app`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from whiteroom.store.resources import InUse, Missing, Stale
from whiteroom.wire.errors import conflict

if TYPE_CHECKING:
    from whiteroom.config import Limits, Settings
    from whiteroom.data.catalog import Catalog
    from whiteroom.data.files import Files
    from whiteroom.data.keys import KeyRing, SecretBox
    from whiteroom.store.database import Database


@dataclass(frozen=True)
class Room:
    """The context of a `Call` and of a job's `Work`: settings and the parts that reach outside the database."""

    settings: Settings
    database: Database
    files: Files
    catalog: Catalog
    secrets: SecretBox
    ring: KeyRing

    @property
    def limits(self) -> Limits:
        return self.settings.limits


def transactions(database: Database) -> Callable[[bool], AbstractContextManager[Connection]]:
    """`transaction(writes)` for `wire.Service`: what only a race can cause becomes a ConflictException."""

    @contextmanager
    def transaction(writes: bool) -> Iterator[Connection]:
        try:
            with database.write() if writes else database.read() as tx:
                yield tx
        except Stale as error:
            raise conflict("The resource was changed by another request at the same time; try again.") from error
        except InUse as error:
            raise conflict("Another resource that depends on this one was just made; delete that one first.") from error
        except Missing as error:
            raise conflict("A resource this request needs was deleted at the same time; try again.") from error

    return transaction
