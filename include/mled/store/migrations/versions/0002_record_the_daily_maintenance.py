"""Record the daily maintenance."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "maintenance_run",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("state", sa.String(length=200), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("orphans", sa.BigInteger(), nullable=True),
        sa.Column("problems", sa.JSON(), nullable=True),
        sa.Column("backup_path", sa.Text(), nullable=True),
        sa.Column("backup_bytes", sa.BigInteger(), nullable=True),
        sa.Column("backups_deleted", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("updated_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "(state = 'running') = (ended_at IS NULL)", name=op.f("ck_maintenance_run_ended")
        ),
        sa.CheckConstraint(
            "state IN ('running', 'succeeded', 'failed')", name=op.f("ck_maintenance_run_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenance_run")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("maintenance_run", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_maintenance_run_updated_at"), ["updated_at"], unique=False
        )
