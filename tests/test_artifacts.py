"""Files of trials in an object store: sent once, checked when they come back."""

from __future__ import annotations

import shutil

import pytest
import sqlalchemy as sa

import mled
from mled.objects import Objects
from mled.settings import load
from mled.store.schema import Artifact
from tests.object_store import Refusal


def names(database):
    with database.read() as connection:
        return connection.scalars(sa.select(Artifact.name)).all()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def trial(object_store):
    with mled.experiment("study", dataset="d", model="m").trial({}) as trial:
        yield trial


def test_a_file_is_sent_once_and_fetched_where_it_is_missing(trial, file, object_store):
    with object_store.counted() as counts:
        trial.artifact(file)
        trial.artifact(file, name="again")
    assert counts == {"HEAD": 2, "PUT": 1}
    assert len(Objects(load()).keys("artifacts")) == 1
    shutil.rmtree(load().artifacts)
    with object_store.counted() as counts:
        assert mled.artifact(trial.id, "again").read_bytes() == b"weights"
        assert mled.artifact(trial.id, "model.bin").read_bytes() == b"weights"
    assert counts == {"GET": 1}


def test_a_damaged_file_is_not_handed_out(trial, file, object_store):
    trial.artifact(file)
    shutil.rmtree(load().artifacts)
    bucket = load().object_store.split("/")[2]
    (key,) = Objects(load()).keys("artifacts")
    object_store.server.client().put_object(Bucket=bucket, Key=f"mled/{key}", Body=b"other")
    with pytest.raises(mled.StoreError, match=r"'model.bin' of trial 1: s3://.* is damaged"):
        mled.artifact(trial.id, "model.bin")
    assert not [path for path in load().artifacts.rglob("*") if path.is_file()]


def test_an_object_store_that_refuses_leaves_no_record(trial, file, object_store, database):
    with (
        object_store.failing(lambda *_: Refusal(403, "InvalidAccessKeyId")),
        pytest.raises(mled.StoreError, match=r"MLED_OBJECT_STORE=s3://.* AWS_SECRET_ACCESS_KEY"),
    ):
        trial.artifact(file)
    assert names(database) == []
    trial.artifact(file)
    assert names(database) == ["model.bin"]


def test_without_an_object_store(home, database, file):
    with mled.experiment("study", dataset="d", model="m").trial({}) as trial:
        kept = trial.artifact(file)
    assert mled.artifact(trial.id, "model.bin") == kept
    with pytest.raises(mled.StoreError, match="trial 1 has no artifact 'other'"):
        mled.artifact(trial.id, "other")
    kept.unlink()
    with pytest.raises(mled.StoreError, match="is not there: restore it from a backup"):
        mled.artifact(trial.id, "model.bin")
