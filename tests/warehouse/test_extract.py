"""One batch holds what changed in the store, once, and appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from mled.store.schema import STAMPED, Author, Clock, Experiment, Metric, Tombstone, Trial
from mled.warehouse import batches
from mled.warehouse.extract import extract
from mled.warehouse.files import WarehouseError, exclusive


@pytest.fixture
def settings(either_store):
    return either_store


def rows(settings, batch, table):
    folder = batches.folder_of(settings, batch)
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


def test_the_first_batch_knows_every_table(settings, database):
    batch = extract(settings)
    assert batch.rows == 0
    assert set(batch.tables) == {table.name for table in STAMPED}
    for table in STAMPED:
        assert batch.columns[table.name].keys() == {*table.c.keys(), "is_deleted", "staged_in"}
    assert extract(settings) is None


def test_a_manifest_says_what_the_files_hold(settings, lab):
    trial = lab.trial(lab.experiment(), {"C": 1})
    lab.log(trial, "loss", {0: 1.0, 1: 0.5})
    batch = extract(settings)
    assert batches.series(settings) == [batch]
    assert batch.tables["metric"].rows == batch.tables["metric"].inserted == 2
    folder = batches.folder_of(settings, batch)
    assert sum(f.bytes for f in batch.tables.values()) == batch.bytes
    for name, file in batch.tables.items():
        content = (folder / f"{name}.parquet").read_bytes()
        assert file.sha256 == hashlib.sha256(content).hexdigest()
        assert file.bytes == len(content)


def test_windows_take_each_change_once(settings, lab):
    experiment = lab.experiment()
    lab.trial(experiment)
    first = extract(settings)
    assert extract(settings) is None

    lab.update(Experiment, experiment, name="renamed")
    trial = lab.trial(experiment)
    second = extract(settings)
    assert second.low == first.high
    assert second.tables.keys() == {"experiment", "trial", "attempt"}
    assert [r["name"] for r in rows(settings, second, "experiment")] == ["renamed"]
    assert second.tables["experiment"].updated == 1
    assert [r["id"] for r in rows(settings, second, "trial")] == [trial]


def test_values_keep_their_type(settings, lab):
    grid = {"C": [1, 2.5, None]}
    trial = lab.trial(lab.experiment(grid=grid), {"C": 2**60, "text": "ä\n'"})
    lab.log(trial, "loss", {0: math.nan, 1: math.inf, 2: 5e-324, 3: "text", 4: True})
    batch = extract(settings)
    assert json.loads(rows(settings, batch, "experiment")[0]["grid"]) == grid
    points = [(r["number"], r["text"]) for r in rows(settings, batch, "metric")]
    assert points == [
        (None, None),
        (math.inf, None),
        (5e-324, None),
        (None, '"text"'),
        (1.0, "true"),
    ]
    hyperparameters = {r["name"]: r for r in rows(settings, batch, "hyperparameter")}
    assert hyperparameters["C"]["text"] == str(2**60)
    assert hyperparameters["text"]["text"] == "ä\n'"


def test_a_deleted_row_arrives_as_its_key(settings, lab):
    trial = lab.trial(lab.experiment(), {'it\'s "C"': 1})
    lab.log(trial, "loss", {0: 1.0, 1: 0.5})
    extract(settings)
    lab.delete(Trial, Trial.id == trial)
    batch = extract(settings)
    assert batch.tables["metric"].deleted == 2
    dead = [(r["trial_id"], r["name"], r["step"]) for r in rows(settings, batch, "metric")]
    assert sorted(dead) == [(trial, "loss", 0), (trial, "loss", 1)]
    row = rows(settings, batch, "hyperparameter")[0]
    assert row["is_deleted"] and row["name"] == 'it\'s "C"' and row["kind"] is None
    with lab.database.read() as connection:
        stamps = connection.scalars(sa.select(Tombstone.updated_at)).all()
    assert row["updated_at"] in stamps


def test_more_rows_than_fit_into_memory_at_a_time(settings, lab, monkeypatch):
    monkeypatch.setattr("mled.warehouse.extract.CHUNK_ROWS", 100)
    trial = lab.trial(lab.experiment())
    lab.log(trial, "loss", {step: step / 7 for step in range(1_234)})
    batch = extract(settings)
    assert [r["number"] for r in rows(settings, batch, "metric")] == [s / 7 for s in range(1_234)]
    lab.delete(Metric)
    batch = extract(settings)
    assert {r["step"] for r in rows(settings, batch, "metric")} == set(range(1_234))


def test_another_store_stops_the_run(settings, lab):
    extract(settings)
    with lab.database.write() as connection:
        connection.execute(sa.update(Clock).values(store_id="another"))
    with pytest.raises(WarehouseError, match=r"another.*mled warehouse rebuild.*MLED_STORE_URL"):
        extract(settings)
    batch = extract(settings, afresh=True)
    assert (batch.store_id, batch.low) == ("another", 0)
    assert batches.series(settings) == [batch]


def test_a_restored_store_stops_the_run(settings, lab, monkeypatch):
    lab.experiment()
    high = extract(settings).high
    for stamp in ("clock", "high"):
        monkeypatch.setattr(lab.database.dialect, stamp, lambda connection: high - 1)
    with pytest.raises(WarehouseError, match=r"older copy.*mled warehouse rebuild"):
        extract(settings)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("name", "author.name of the store was string and is now int64"),
        ("gone", "author.gone of the store was removed"),
    ],
)
def test_a_removed_or_retyped_column_stops_the_run(settings, lab, monkeypatch, column, change):
    lab.experiment()
    if column == "gone":
        table = Author.__table__.to_metadata(sa.MetaData())
        with lab.database.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE author ADD COLUMN gone INTEGER"))
        table.append_column(sa.Column("gone", sa.BigInteger))
        with monkeypatch.context() as before:
            before.setattr("mled.warehouse.extract.STAMPED", (table,))
            extract(settings)
    else:
        extract(settings)
        monkeypatch.setattr(Author.__table__.c.name, "type", sa.BigInteger())
    lab.experiment()
    with pytest.raises(WarehouseError, match=f"{change}.*dbt_project"):
        extract(settings)


def test_a_new_column_simply_arrives(settings, lab, monkeypatch):
    lab.experiment()
    extract(settings)
    with lab.database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE author ADD COLUMN mail TEXT"))
        connection.execute(sa.text("UPDATE author SET mail = 'a@b'"))
    table = Author.__table__.to_metadata(sa.MetaData())
    table.append_column(sa.Column("mail", sa.Text))
    others = tuple(t for t in STAMPED if t.name != "author")
    monkeypatch.setattr("mled.warehouse.extract.STAMPED", (table, *others))
    batch = extract(settings)
    assert [r["mail"] for r in rows(settings, batch, "author")] == ["a@b"]


def test_what_a_killed_run_left_is_cleared_away(settings, lab):
    left = settings.staging / "tmp" / "0-1"
    left.mkdir(parents=True)
    (left / "metric.parquet").write_text("half a file")
    lab.experiment()
    batch = extract(settings)
    assert not left.exists()
    assert [p.name for p in batches.committed(settings).iterdir()] == [batch.name]


def test_a_damaged_manifest_is_named(settings, lab):
    batch = extract(settings)
    (batches.folder_of(settings, batch) / batches.MANIFEST).write_text("{}")
    with pytest.raises(WarehouseError, match=r"manifest.json is no manifest.*restore the folder"):
        extract(settings)


def test_a_batch_that_is_missing_is_noticed(settings, lab):
    for _ in range(3):
        lab.experiment()
        batch = extract(settings)
    middle = batches.folder_of(settings, batches.series(settings)[1])
    middle.rename(settings.staging / "lost")
    with pytest.raises(WarehouseError, match=rf"from \d+ to {batch.low}.*mled warehouse rebuild"):
        extract(settings)


def test_a_row_changed_between_the_watermark_and_the_snapshot_is_in_the_batch(
    settings, lab, monkeypatch
):
    """Without it the rows that refer to it would lack it until the next run."""
    experiment = lab.experiment()
    lab.trial(experiment)
    dialect = lab.database.dialect
    measured = dialect.high

    def high(connection):
        found = measured(connection)
        lab.update(Experiment, experiment, name="renamed meanwhile")
        lab.delete(Author, Author.name == "gone meanwhile")
        return found

    with lab.database.write() as connection:
        connection.execute(sa.insert(Author).values(name="gone meanwhile"))
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(dialect, "high", high)
        first = extract(settings)
    assert [r["name"] for r in rows(settings, first, "experiment")] == ["renamed meanwhile"]
    gone = rows(settings, first, "author")[-1]
    assert gone["is_deleted"] and gone["updated_at"] > first.high

    # What lies beyond the watermark comes again, and says the same.
    second = extract(settings)
    assert second.low == first.high
    assert [r["name"] for r in rows(settings, second, "experiment")] == ["renamed meanwhile"]
    assert rows(settings, second, "author")[-1]["is_deleted"]


def test_only_one_at_a_time(settings):
    with (
        exclusive(settings),
        pytest.raises(WarehouseError, match=r"another ETL is at work.*wait until it has ended"),
        exclusive(settings),
    ):
        pass
    with exclusive(settings):
        pass
