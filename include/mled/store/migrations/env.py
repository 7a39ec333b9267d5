"""Runs the migrations on the connection that `mled.store.database.upgrade` hands over."""

from alembic import context

from mled.store.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_server_default=True,
    # SQLite can roll back DDL too, once the driver leaves the transaction to us.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
