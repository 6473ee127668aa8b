"""Run by Alembic: hands it the transaction that `upgrade` opened and the tables to compare with."""

from alembic import context

from whiteroom.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
