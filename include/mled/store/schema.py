"""The tables of the store.

Every table has a primary key that never changes, and `created_at` and `updated_at` in the store's
own clock (see `dialects.py`): integer microseconds UTC, stamped by the database. Times that a
program reports (`started_at`, `ended_at`, `heartbeat_at`) are microseconds UTC as well.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from mled.store.values import KINDS, MAX_NAME

PENDING, RUNNING, FINISHED, FAILED, ORPHANED = (
    "pending",
    "running",
    "finished",
    "failed",
    "orphaned",
)
STATES = (PENDING, RUNNING, FINISHED, FAILED, ORPHANED)
ENDED = (FINISHED, FAILED, ORPHANED)
DIRECTIONS = ("maximize", "minimize")

# SQLite makes a rowid alias of INTEGER only, and 64 bits wide all the same.
Id = BigInteger().with_variant(Integer, "sqlite")
Name = String(MAX_NAME)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(v) for v in values)})"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Clock(Base):
    """One row: which store this is, and the last stamp its clock gave out."""

    __tablename__ = "clock"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    store_id: Mapped[str] = mapped_column(String(36))
    last_us: Mapped[int] = mapped_column(BigInteger)
    is_open: Mapped[bool] = mapped_column(Boolean, server_default=false())


class Tombstone(Base):
    """A deleted row: its table, and its primary key as a JSON object."""

    __tablename__ = "tombstone"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    table_name: Mapped[str] = mapped_column(Name)
    key: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[int] = mapped_column(BigInteger, index=True)


class Stamped:
    """A table whose rows the store's clock stamps."""

    created_at: Mapped[int] = mapped_column(BigInteger, server_default="0", sort_order=98)
    updated_at: Mapped[int] = mapped_column(
        BigInteger, server_default="0", index=True, sort_order=99
    )


class Numbered(Stamped):
    """A stamped table whose key is a number that is never used again."""

    id: Mapped[int] = mapped_column(Id, primary_key=True, sort_order=-1)


class Author(Numbered, Base):
    """A person who runs experiments."""

    __tablename__ = "author"
    __table_args__ = ({"sqlite_autoincrement": True},)
    name: Mapped[str] = mapped_column(Name, unique=True)


class Dataset(Numbered, Base):
    """One version of a data set, named by the hash of its content."""

    __tablename__ = "dataset"
    __table_args__ = (UniqueConstraint("name", "version"), {"sqlite_autoincrement": True})
    name: Mapped[str] = mapped_column(Name)
    version: Mapped[str] = mapped_column(String(64))
    source: Mapped[str | None] = mapped_column(Text)
    task: Mapped[str | None] = mapped_column(Name)
    rows: Mapped[int | None] = mapped_column(BigInteger)
    features: Mapped[int | None] = mapped_column(BigInteger)
    classes: Mapped[int | None] = mapped_column(BigInteger)
    bytes: Mapped[int | None] = mapped_column(BigInteger)


class Split(Numbered, Base):
    """Which rows of a dataset were trained on and which evaluated, by the hash of both lists."""

    __tablename__ = "split"
    __table_args__ = (UniqueConstraint("dataset_id", "digest"), {"sqlite_autoincrement": True})
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id"))
    digest: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(Text)
    train_rows: Mapped[int] = mapped_column(BigInteger)
    evaluation_rows: Mapped[int] = mapped_column(BigInteger)
    shared_rows: Mapped[int] = mapped_column(BigInteger, server_default="0")


class Model(Numbered, Base):
    """A kind of model, and the JSON schema of its hyperparameters."""

    __tablename__ = "model"
    __table_args__ = ({"sqlite_autoincrement": True},)
    name: Mapped[str] = mapped_column(Name, unique=True)
    library: Mapped[str | None] = mapped_column(Name)
    description: Mapped[str | None] = mapped_column(Text)
    hyperparameter_schema: Mapped[dict | None] = mapped_column(JSON)


class CodeVersion(Numbered, Base):
    """The git commit a trial ran from; `dirty` when files differed from it."""

    __tablename__ = "code_version"
    __table_args__ = (
        UniqueConstraint("git_commit", "dirty", "diff_sha256"),
        {"sqlite_autoincrement": True},
    )
    git_commit: Mapped[str] = mapped_column(String(64))
    dirty: Mapped[bool] = mapped_column(Boolean)
    diff_sha256: Mapped[str] = mapped_column(String(64))


class Environment(Numbered, Base):
    """Python, packages and hardware; one row for each combination, named by its hash."""

    __tablename__ = "environment"
    __table_args__ = ({"sqlite_autoincrement": True},)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    python: Mapped[str] = mapped_column(Name)
    platform: Mapped[str] = mapped_column(Text)
    packages: Mapped[dict] = mapped_column(JSON)
    hardware: Mapped[dict] = mapped_column(JSON)


class Experiment(Numbered, Base):
    """A question with a dataset, a model and a grid."""

    __tablename__ = "experiment"
    __table_args__ = (
        CheckConstraint(_one_of("direction", DIRECTIONS), name="direction"),
        {"sqlite_autoincrement": True},
    )
    name: Mapped[str] = mapped_column(Name, unique=True)
    description: Mapped[str | None] = mapped_column(Text)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"), index=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id"), index=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"), index=True)
    objective: Mapped[str | None] = mapped_column(Name)
    direction: Mapped[str] = mapped_column(Name, server_default="maximize")
    grid: Mapped[dict | None] = mapped_column(JSON)


class Trial(Numbered, Base):
    """One point of an experiment's grid with one seed; its state is its latest attempt's."""

    __tablename__ = "trial"
    __table_args__ = (
        UniqueConstraint("experiment_id", "identity", "seed", "repeat"),
        Index("ix_trial_experiment_state", "experiment_id", "state"),
        CheckConstraint(_one_of("state", STATES), name="state"),
        CheckConstraint("(state = 'pending') = (started_at IS NULL)", name="started"),
        CheckConstraint(f"({_one_of('state', ENDED)}) = (ended_at IS NOT NULL)", name="ended"),
        CheckConstraint("(state = 'pending') = (attempt = 0)", name="attempted"),
        {"sqlite_autoincrement": True},
    )
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiment.id", ondelete="CASCADE"))
    identity: Mapped[str] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(BigInteger)
    repeat: Mapped[int] = mapped_column(Integer, server_default="0")
    hyperparameters: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Name, server_default=PENDING)
    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    started_at: Mapped[int | None] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    split_id: Mapped[int | None] = mapped_column(ForeignKey("split.id"))


class Attempt(Stamped, Base):
    """One execution of a trial."""

    __tablename__ = "attempt"
    __table_args__ = (
        CheckConstraint(_one_of("state", (RUNNING, *ENDED)), name="state"),
        CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended"),
        CheckConstraint(
            "(state IN ('failed', 'orphaned')) = (error_message IS NOT NULL)", name="error"
        ),
    )
    trial_id: Mapped[int] = mapped_column(
        ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(Name)
    started_at: Mapped[int] = mapped_column(BigInteger)
    heartbeat_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    duration_s: Mapped[float | None] = mapped_column(Double)
    cpu_s: Mapped[float | None] = mapped_column(Double)
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int] = mapped_column(BigInteger)
    code_version_id: Mapped[int | None] = mapped_column(ForeignKey("code_version.id"))
    environment_id: Mapped[int | None] = mapped_column(ForeignKey("environment.id"))
    error_type: Mapped[str | None] = mapped_column(Text)
    error_message: Mapped[str | None] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)


class Value(Stamped):
    """A typed value of a trial (see `values.py`), keyed by its name."""

    trial_id: Mapped[int] = mapped_column(
        ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(Name, primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    number: Mapped[float | None] = mapped_column(Double)
    text: Mapped[str | None] = mapped_column(Text)


class Hyperparameter(Value, Base):
    """A hyperparameter of a trial."""

    __tablename__ = "hyperparameter"
    __table_args__ = (
        CheckConstraint(_one_of("kind", KINDS), name="kind"),
        {"sqlite_with_rowid": False},
    )


class Tag(Value, Base):
    """Anything a person adds to a trial: a word, a number, or any JSON."""

    __tablename__ = "tag"
    __table_args__ = (
        CheckConstraint(_one_of("kind", KINDS), name="kind"),
        {"sqlite_with_rowid": False},
    )


class Note(Numbered, Base):
    """A remark about a trial."""

    __tablename__ = "note"
    __table_args__ = ({"sqlite_autoincrement": True},)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"), index=True)
    text: Mapped[str] = mapped_column(Text)


class Artifact(Numbered, Base):
    """A file that a trial left; kept once by its hash, whatever its names."""

    __tablename__ = "artifact"
    __table_args__ = (UniqueConstraint("trial_id", "name"), {"sqlite_autoincrement": True})
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))


class Metric(Base):
    """A metric point. `number` is NULL for NaN; what is no number is in `text`, as JSON.

    This is the one table that grows without bound, so it is as narrow as can be: it is clustered
    by its key, and instead of an index on `updated_at` (22 bytes a point) the table
    `metric_change` tells which trials have new points.
    """

    __tablename__ = "metric"
    __table_args__ = (
        CheckConstraint("step >= 0", name="step"),
        {"sqlite_with_rowid": False},
    )
    trial_id: Mapped[int] = mapped_column(
        ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(Name, primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    number: Mapped[float | None] = mapped_column(Double)
    text: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default="0")
    updated_at: Mapped[int] = mapped_column(BigInteger, server_default="0")


class MetricChange(Base):
    """When a metric point of a trial last changed; kept by the same triggers."""

    __tablename__ = "metric_change"
    trial_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    updated_at: Mapped[int] = mapped_column(BigInteger, index=True)


class EtlRun(Numbered, Base):
    """One run of the hourly pipeline: what it took, how long each stage lasted, how it ended."""

    __tablename__ = "etl_run"
    __table_args__ = (
        CheckConstraint("state IN ('running', 'succeeded', 'failed')", name="state"),
        CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended"),
        {"sqlite_autoincrement": True},
    )
    run_id: Mapped[str] = mapped_column(Name, unique=True)
    state: Mapped[str] = mapped_column(Name)
    started_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    batch_id: Mapped[int | None] = mapped_column(BigInteger)
    low: Mapped[int | None] = mapped_column(BigInteger)
    high: Mapped[int | None] = mapped_column(BigInteger)
    rows_read: Mapped[int | None] = mapped_column(BigInteger)
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    lag_s: Mapped[float | None] = mapped_column(Double)
    tables: Mapped[dict | None] = mapped_column(JSON)
    stage_seconds: Mapped[dict | None] = mapped_column(JSON)
    mart_version: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)


class MaintenanceRun(Numbered, Base):
    """One run of the daily maintenance: what it checked, copied and deleted, how it ended."""

    __tablename__ = "maintenance_run"
    __table_args__ = (
        CheckConstraint("state IN ('running', 'succeeded', 'failed')", name="state"),
        CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended"),
        {"sqlite_autoincrement": True},
    )
    state: Mapped[str] = mapped_column(Name)
    started_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    orphans: Mapped[int | None] = mapped_column(BigInteger)
    problems: Mapped[list | None] = mapped_column(JSON)
    backup_path: Mapped[str | None] = mapped_column(Text)
    backup_bytes: Mapped[int | None] = mapped_column(BigInteger)
    backups_deleted: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)


STAMPED = tuple(
    table
    for table in Base.metadata.sorted_tables
    if "updated_at" in table.c and table.name not in ("tombstone", "metric_change")
)
"""The tables whose rows the clock stamps, in an order that satisfies their foreign keys."""
