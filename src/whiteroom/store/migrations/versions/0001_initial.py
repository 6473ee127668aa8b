"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
    )
    op.create_table(
        "audit_event",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text()),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_event_account_id", "audit_event", ["account", "id"])

    op.create_table(
        "budget_entry",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.Column("job", sa.BigInteger()),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budget_entry"),
        sa.UniqueConstraint("budget", "unit", "job", name="uq_budget_entry_budget_unit_job"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "access_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.id"], name="fk_access_key_account"),
        sa.PrimaryKeyConstraint("id", name="pk_access_key"),
    )
    op.create_index("ix_access_key_account", "access_key", ["account"])

    op.create_table(
        "bucket",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.id"], name="fk_bucket_account"),
        sa.PrimaryKeyConstraint("name", name="pk_bucket"),
    )
    op.create_index("ix_bucket_account", "bucket", ["account"])

    op.create_table(
        "catalog_table",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("database", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("columns", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.id"], name="fk_catalog_table_account"),
        sa.PrimaryKeyConstraint("account", "database", "name", name="pk_catalog_table"),
    )
    op.create_table(
        "resource",
        sa.Column("sequence", IDENTITY, nullable=False),
        sa.Column("arn", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("unique_name", sa.Text()),
        sa.Column("parent", sa.Text()),
        sa.Column("collaboration", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("private", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.id"], name="fk_resource_account"),
        sa.ForeignKeyConstraint(["parent"], ["resource.arn"], name="fk_resource_parent"),
        sa.PrimaryKeyConstraint("sequence", name="pk_resource"),
        sa.UniqueConstraint(
            "account", "region", "kind", "unique_name", name="uq_resource_account_region_kind_unique_name"
        ),
        sa.UniqueConstraint("arn", name="uq_resource_arn"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_resource_account_kind_sequence", "resource", ["account", "kind", "sequence"])
    op.create_index("ix_resource_parent", "resource", ["parent"])

    op.create_table(
        "job",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("resource_arn", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text()),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("run_after", sa.BigInteger(), nullable=False),
        sa.Column("checkpoint", sa.JSON(none_as_null=True)),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("progress_text", sa.Text(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger()),
        sa.Column("ended", sa.BigInteger()),
        sa.CheckConstraint("status IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED')", name=op.f("ck_job_status")),
        sa.ForeignKeyConstraint(["resource_arn"], ["resource.arn"], name="fk_job_resource_arn", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_resource_arn", "job", ["resource_arn"])
    op.create_index("ix_job_status_lease_until", "job", ["status", "lease_until"])
    op.create_index("ix_job_status_run_after", "job", ["status", "run_after"])
