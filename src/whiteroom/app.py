"""The composition root: settings in, the parts of a process put together. Only the entry points import it.

Three processes are made here: the API (`service`), a worker (`run_worker`) and one attempt at a job (`run_job`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from whiteroom.problems import Problem

if TYPE_CHECKING:
    from whiteroom.config import Settings
    from whiteroom.data.keys import SecretBox
    from whiteroom.rooms.room import Room
    from whiteroom.store.database import Database
    from whiteroom.wire.service import Service
    from whiteroom.wire.sigv4 import Credential

_KEY_SECONDS = 1.0
"""How long a removed access key may still be accepted."""
_KEYS_HELD = 10_000


def open_database(settings: Settings, *, migrate: bool = True) -> Database:
    """The database of the settings: it answers, and unless `migrate` is false its schema is up to date.

    Raises
    ------
    Problem : the URL is unusable, the server does not answer or refuses; without the password.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

    from whiteroom.store.database import Database
    from whiteroom.store.migrations import SchemaTooNew

    try:
        url = make_url(settings.sqlalchemy_url)
        where = url.render_as_string(hide_password=True)
    except ArgumentError as error:
        raise Problem(
            "The database URL cannot be read; write postgresql+psycopg://USER@HOST/NAME or sqlite:////FILE."
        ) from error
    try:
        database = Database(settings.sqlalchemy_url)
        if migrate:
            database.migrate()
        else:
            with database.read():
                pass
    except ModuleNotFoundError as error:
        raise Problem(f"{where} needs the package {error.name}: pip install 'whiteroom[postgres]'") from error
    except (ArgumentError, NoSuchModuleError, ValueError, SchemaTooNew) as error:
        raise Problem(f"The database {where} cannot be used: {_without(url.password, error)}") from error
    except DBAPIError as error:
        reason = _without(url.password, error.orig or error)
        raise Problem(f"The database {where} cannot be reached: {reason}") from error
    return database


def secret_box(settings: Settings) -> SecretBox:
    """What seals secrets under the server key, made where it is missing. Raises Problem for a key that is none."""
    from whiteroom.data.errors import DataError
    from whiteroom.data.keys import SecretBox

    try:
        return SecretBox.from_settings(settings)
    except DataError as error:
        raise Problem(error.message) from error


def build(settings: Settings, database: Database) -> Room:
    """What operations and jobs work with, over an open database. Raises Problem as `secret_box` does."""
    from whiteroom.data.catalog import from_settings as catalog_from_settings
    from whiteroom.data.files import Files
    from whiteroom.data.keys import KeyRing
    from whiteroom.rooms.room import Room

    return Room(
        settings=settings,
        database=database,
        files=Files.from_settings(settings, bucket_owner(database), bucket_adopter(database)),
        catalog=catalog_from_settings(settings, database),
        secrets=secret_box(settings),
        ring=KeyRing.from_settings(settings),
    )


def service(room: Room, keys: Keys, health: Callable[[], Any]) -> Service:
    """The API as an ASGI application; `keys` knows the access keys, `health` answers GET /healthz."""
    from whiteroom import rooms  # noqa: F401 - importing it registers every operation
    from whiteroom.rooms.access import recorder
    from whiteroom.rooms.room import transactions
    from whiteroom.wire.service import Service

    database = room.database
    return Service(
        transaction=transactions(database),
        lookup=keys,
        context=room,
        on_denied=recorder(database),
        max_body_bytes=room.settings.max_body_bytes,
        reads_wait=not database.is_sqlite,  # whose write-ahead log lets no reader wait
        health=health,
    )


def run_worker(settings: Settings, *, parent: int | None = None) -> None:
    """Work on the queue of the settings' database until SIGTERM or SIGINT, or until `parent` dies."""
    from whiteroom.jobs import worker
    from whiteroom.processes import end_with_parent
    from whiteroom.store.database import Database

    if parent is not None:
        end_with_parent(parent)
    # A server has its database open already; one that is away for a moment does not end its worker.
    database = open_database(settings) if parent is None else Database(settings.sqlalchemy_url)
    worker.run(settings, database, job_kinds())


def run_job(settings: Settings, job_id: int, attempt: int) -> int:
    """One attempt at a job; returns the exit code of the process that it has to itself."""
    from whiteroom.jobs import child
    from whiteroom.store.database import Database

    database = Database(settings.sqlalchemy_url)  # connects when it is used, and then has patience
    return child.run(job_id, attempt, database, job_kinds(), build(settings, database), settings)


def job_kinds() -> Mapping[str, Any]:
    """Every kind of job by its name."""
    from whiteroom.rooms import JOB_KINDS

    return {kind.name: kind for kind in JOB_KINDS}


def bucket_owner(database: Database) -> Callable[[str], str | None]:
    """Which account a bucket belongs to, by the database."""
    from whiteroom.store import buckets

    def owner(bucket: str) -> str | None:
        with database.read() as tx:
            return buckets.owner(tx, bucket)

    return owner


def bucket_adopter(database: Database) -> Callable[[str, str], None]:
    """Gives a bucket to the account that made it through the S3 endpoint, unless somebody was quicker."""
    from whiteroom.store import buckets

    def adopt(bucket: str, account: str) -> None:
        with suppress(buckets.BucketTaken), database.write() as tx:
            buckets.create(tx, bucket, account, datetime.now(UTC))

    return adopt


class Keys:
    """Looks up access keys for `wire.sigv4`. A key's account and secret are held for a second at most.

    Only keys that exist are held, so a key made by the command line works at once and strangers fill nothing.
    """

    def __init__(self, database: Database, secrets: SecretBox) -> None:
        self._database = database
        self._secrets = secrets
        self._held: dict[str, tuple[float, Credential]] = {}

    def check(self) -> None:
        """Raises Problem when the server key is not the one that sealed the database's secrets."""
        from whiteroom.data.errors import DataError
        from whiteroom.store import accounts

        with self._database.read() as tx:
            ids = [key for account in accounts.listing(tx)[:1] for key in accounts.key_ids(tx, account.id)[:1]]
        try:
            for access_key_id in ids:
                self(access_key_id)
        except DataError as error:
            raise Problem(
                "The server key is not the one that sealed this database's secrets. Restore "
                "DATA_DIR/keys/server.key, or set WHITEROOM_SERVER_KEY to the key that was used."
            ) from error

    def __call__(self, access_key_id: str) -> Credential | None:
        from whiteroom.store import accounts
        from whiteroom.wire.sigv4 import Credential

        now = time.monotonic()
        read_at, credential = self._held.get(access_key_id, (0.0, None))
        if credential is not None and now - read_at < _KEY_SECONDS:
            return credential
        with self._database.read() as tx:
            found = accounts.find_key(tx, access_key_id)
        if found is None:
            self._held.pop(access_key_id, None)
            return None
        account, sealed = found
        secret = self._secrets.open(sealed, context=accounts.secret_context(access_key_id)).decode()
        credential = Credential(account, access_key_id, secret)
        if len(self._held) >= _KEYS_HELD:
            self._held.clear()
        self._held[access_key_id] = (now, credential)
        return credential


def _without(password: Any, error: BaseException) -> str:
    """The error's first line; a driver may repeat the password it was given."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.replace(str(password), "***") if password else line
