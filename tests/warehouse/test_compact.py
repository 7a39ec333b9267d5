"""Merging batches bounds staging, and leaves the marts as they were."""

from __future__ import annotations

import duckdb
import pytest
from lab import check, fill, mart

from mled.store.schema import Metric
from mled.warehouse import batches, compact
from mled.warehouse.compact import _first_to_merge
from mled.warehouse.extract import extract

pytestmark = pytest.mark.usefixtures("untested")


def staged(settings, table):
    """The newest version of each living row, whatever batches they lie in."""
    keys = ", ".join(compact._KEYS[table])
    with duckdb.connect() as connection:
        return connection.execute(
            f"""
            SELECT * FROM (
                SELECT * FROM read_parquet(
                    '{batches.committed(settings)}/*/{table}.parquet', union_by_name = true
                )
                QUALIFY row_number() OVER (
                    PARTITION BY {keys} ORDER BY staged_in DESC, is_deleted
                ) = 1
            ) WHERE NOT is_deleted ORDER BY {keys}
            """
        ).fetchall()


def test_a_merged_batch_holds_the_newest_version_of_each_row(settings, lab):
    fill(settings, lab, 6)
    before = {table: staged(settings, table) for table in compact._KEYS}
    high = batches.series(settings)[-1].high
    assert compact.compact(settings, most=6) is None
    merged = compact.compact(settings, most=5)
    assert batches.series(settings)[-1] == merged
    assert merged.high == high
    assert {table: staged(settings, table) for table in compact._KEYS} == before
    assert merged.tables["metric"].rows == len(before["metric"])
    assert extract(settings) is None


def test_deletions_stay_unless_nothing_is_older(settings, lab):
    trial = lab.trial(lab.experiment())
    lab.log(trial, "loss", {step: step for step in range(100)})
    first = extract(settings)
    lab.delete(Metric, Metric.step < 10)
    extract(settings)
    lab.log(trial, "loss", {0: 0.5})
    extract(settings)
    later = compact._merge(settings, batches.series(settings), 1)
    assert (later.tables["metric"].rows, later.tables["metric"].deleted) == (10, 9)
    assert [b.name for b in batches.series(settings)] == [first.name, later.name]
    base = compact._merge(settings, batches.series(settings), 0)
    assert (base.tables["metric"].rows, base.tables["metric"].deleted) == (91, 0)
    assert batches.series(settings) == [base]


def test_a_merge_that_died_before_it_cleared_up_is_finished_by_the_next_run(settings, lab, etl):
    fill(settings, lab, 4)
    etl()
    compact._merge(settings, batches.series(settings), 1)
    assert len(list(batches.committed(settings).iterdir())) > 2
    etl(full_refresh=True)
    check(settings)
    assert len(list(batches.committed(settings).iterdir())) == 3


def test_marts_built_from_merged_batches_are_the_same(settings, lab, etl):
    def everything():
        # A rebuild may find a later batch to be the newest that a row depends on.
        rows = mart(settings, "select * exclude (batch_id) from marts.metrics_wide order by all")
        return repr(rows)

    fill(settings, lab, 5)
    etl()
    before = everything()
    compact.compact(settings, most=1)
    etl(full_refresh=True)
    check(settings)
    assert everything() == before


@pytest.mark.parametrize(
    ("sizes", "first"),
    [
        ([1, 1], 0),
        ([100, 1, 1], 1),
        ([100, 10, 4, 1], 2),
        ([8, 4, 2, 1], 2),
        ([5, 3, 2, 2], 0),
        ([100, 1], 0),
    ],
)
def test_what_is_merged(sizes, first):
    class Sized:
        def __init__(self, size):
            self.bytes = size

    assert _first_to_merge([Sized(size) for size in sizes]) == first
