"""Moving an installation to an object store, and seeing where things lie."""

from __future__ import annotations

import dataclasses
import random

import pytest
from click.testing import CliRunner
from lab import check, mart

import mled
from mled.cli import mled as command
from mled.objects import Objects, ObjectStoreError
from mled.settings import load
from mled.warehouse import batches, places, remote_mart
from mled.warehouse.extract import extract
from mled.warehouse.files import WarehouseError
from mled.warehouse.pipeline import run_etl
from mled.warehouse.push import push
from tests.object_store import Refusal

pytestmark = pytest.mark.usefixtures("untested")


@pytest.fixture
def here(object_store, settings):
    """The installation before the object store."""
    return dataclasses.replace(settings, object_store="")


def pushed():
    done = CliRunner().invoke(command, ["warehouse", "push"], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_an_installation_goes_on_in_the_object_store(here, lab, object_store, tmp_path):
    rng = random.Random(1)
    for _ in range(20):
        lab.scribble(rng)
    run_etl(here)
    file = tmp_path / "model.bin"
    file.write_bytes(b"weights")
    with mled.experiment("study", dataset="d", model="m").trial({"C": 1}) as trial:
        trial.artifact(file)
    there = load()
    Objects(there).delete(Objects(there).keys("artifacts"))  # as if it had been kept before
    assert "staging" in pushed()
    before = set(Objects(there).keys())
    assert len([key for key in before if key.startswith("artifacts/")]) == 1
    with object_store.counted() as counts:
        pushed()
    assert "PUT" not in counts
    remote_mart.fetch(there)
    marts = "from marts.metrics_wide order by all"
    assert repr(mart(there, marts)) == repr(mart(here, marts))
    lab.scribble(rng)
    report = run_etl(there)
    assert report.mart_version == 2
    check(there)
    assert len(batches.series(there)) == len(batches.series(here)) + 1
    shown = "\n".join(places.lines(there))
    assert f"{there.object_store}/staging at {object_store.server.url}: 2 batches, up to" in shown
    assert "version 2 of" in shown


def test_an_interrupted_push_is_continued(here, lab, object_store):
    lab.experiment()
    extract(here)
    lab.experiment()
    extract(here)
    sent = iter([None] * 7)
    with (
        object_store.failing(
            lambda method, key: next(sent, Refusal(403, "Away")) if method == "PUT" else None
        ),
        pytest.raises(ObjectStoreError),
    ):
        pushed()
    there = load()
    assert batches.series(there) == []
    assert len(Objects(there).keys("staging")) == 7
    pushed()
    assert batches.series(there) == batches.series(here)


def test_what_cannot_be_pushed(here, lab, object_store):
    with pytest.raises(WarehouseError, match="MLED_OBJECT_STORE is not set"):
        push(here, None)
    lab.experiment()
    batch = extract(here)
    path = batches.folder_of(here, batch) / "author.parquet"
    content = path.read_bytes()
    path.write_bytes(b"other")
    with pytest.raises(WarehouseError, match=r"author.parquet is damaged: its SHA-256 is not"):
        pushed()
    path.write_bytes(content)
    pushed()
    extract(here, afresh=True)
    with pytest.raises(WarehouseError, match="holds the staging of another installation"):
        pushed()


def test_where_things_lie(here, lab):
    lab.experiment()
    extract(here)
    shown = "\n".join(places.lines(here))
    assert f"{here.staging / 'committed'}: 1 batches, up to 20" in shown
    assert f"{here.mart}: nothing yet" in shown
    nothing = "\n".join(places.lines(load()))
    assert "/mart at http://127.0.0.1" in nothing and "nothing yet" in nothing
    assert "test-secret" not in nothing
