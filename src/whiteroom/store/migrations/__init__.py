"""How a database comes to have the tables of `schema.py`: each version is a file in `versions/`.

`alembic` is imported only when there is something to migrate: it costs a tenth of a second at every start.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

HEAD = "0001"
"""The newest version in `versions/`."""


class SchemaTooNew(Exception):
    """The database was migrated by a newer version of this program."""


def version(tx: Connection) -> str | None:
    """The database's version; None when it has no tables yet."""
    if not inspect(tx).has_table("alembic_version"):
        return None
    return tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def upgrade(tx: Connection) -> None:
    """Run the migrations that `tx`'s database lacks, in this very transaction. Raises SchemaTooNew."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = tx
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaTooNew(
            f"the database has schema version {version(tx)}, and this program knows versions up to {HEAD}: "
            "start the newer program that migrated it."
        ) from error
