"""Run by Alembic, on the connection and inside the transaction that `schema.upgrade` opened."""

from alembic import context

from service.store.schema import VERSION_TABLE, is_our_table
from service.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    include_name=is_our_table,
    # SQLite cannot alter a column in place; Alembic then copies the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
