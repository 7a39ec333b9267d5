"""Staging and the mart in an object store: exactly once, whatever is killed, and for all readers.

The seed of a round is printed when it fails, as in `test_faults`.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
from datetime import timedelta

import lab as lab_module
import pytest
from lab import check, fill, mart
from test_faults import SEED, doomed, forked, wait

from mled import objects as objects_module
from mled.objects import Objects, ObjectStoreError
from mled.store.schema import Metric, Trial
from mled.warehouse import batches, compact, remote_mart, remote_staging, versions
from mled.warehouse.extract import extract
from mled.warehouse.files import WarehouseError
from mled.warehouse.pipeline import run_etl
from mled.warehouse.publish import publish
from tests.object_store import LOST, Refusal

TABLES = ("metrics_wide", "trials", "trial_hyperparameter_metrics")
"""What dbt builds here: where the batches come from is the same to all models."""


@pytest.fixture(autouse=True)
def few_models(monkeypatch):
    compare = lab_module._compare

    def compare_built(settings, table, *arguments):
        if table in TABLES:
            compare(settings, table, *arguments)

    monkeypatch.setattr(lab_module, "_compare", compare_built)
    monkeypatch.setattr(
        "mled.warehouse.dbt.BUILD", ("run", "--select", *(f"+{table}" for table in TABLES))
    )


@pytest.fixture
def settings(object_store, settings):
    return settings


@pytest.fixture
def machine(settings, tmp_path):
    """Makes another machine: a home of its own, with the same store and object store."""

    def make(name):
        home = tmp_path / name
        home.mkdir()
        return dataclasses.replace(settings, home=home)

    return make


NUMBERS = "select distinct number from marts.a union select number from marts.b"


def staged(settings):
    return [folder.name for folder in batches.committed(settings).iterdir()]


# --- Staging


def test_another_machine_has_the_same_batches(settings, machine, lab):
    fill(settings, lab, 3)
    other = machine("other")
    assert batches.series(other) == batches.series(settings)
    for folder in batches.committed(settings).iterdir():
        for path in folder.iterdir():
            assert (batches.committed(other) / folder.name / path.name).read_bytes() == (
                path.read_bytes()
            )
    lab.experiment()
    new = extract(other)
    assert batches.series(settings)[-1] == new
    assert extract(settings) is None


def test_of_two_that_extract_at_once_one_succeeds(settings, machine, lab, monkeypatch):
    fill(settings, lab, 2)
    lab.experiment()
    other, upload = machine("other"), remote_staging.upload

    def late(objects, folder):
        monkeypatch.setattr(remote_staging, "upload", upload)
        extract(other)
        return upload(objects, folder)

    monkeypatch.setattr(remote_staging, "upload", late)
    with pytest.raises(
        WarehouseError, match=r"another machine has changed s3://.*run the ETL again"
    ):
        extract(settings)
    assert len(batches.series(other)) == 3
    assert batches.series(settings) == batches.series(other)
    assert extract(settings) is None


def test_a_new_series_replaces_the_old_one_everywhere(settings, machine, lab):
    fill(settings, lab, 3)
    other = machine("other")
    batches.series(other)
    first = extract(settings, afresh=True)
    assert batches.series(other) == [first] == batches.series(settings)


def test_a_damaged_copy_is_fetched_again_and_a_damaged_object_named(settings, lab, object_store):
    fill(settings, lab, 2)
    before = batches.series(settings)
    folder = batches.folder_of(settings, before[0])
    (folder / batches.MANIFEST).write_text("{}")
    assert batches.series(settings) == before
    shutil.rmtree(folder)
    bucket = settings.object_store.split("/")[2]
    key = f"mled/{remote_staging.entry_of(batches.folder_of(settings, before[1])).folder}"
    shutil.rmtree(batches.folder_of(settings, before[1]))
    name = f"{key}/etl_run.parquet" if "etl_run" in before[1].tables else f"{key}/manifest.json"
    object_store.server.client().put_object(Bucket=bucket, Key=name, Body=b"something else")
    with pytest.raises(ObjectStoreError, match=r"s3://.*/staging/.* is damaged: its SHA-256 is"):
        batches.series(settings)


def test_a_list_that_is_none(settings, lab):
    fill(settings, lab, 1)
    objects = Objects(settings)
    assert objects.swap(remote_staging.SERIES, b"{}", objects.read(remote_staging.SERIES))
    with pytest.raises(WarehouseError, match=r"list of batches cannot be read .*older version"):
        batches.series(settings)


def test_a_merged_batch_reaches_machines_that_lag_behind(settings, machine, lab, etl, monkeypatch):
    """Their build files still hold rows whose deletion is merged away elsewhere."""
    trial = lab.trial(lab.experiment())
    lab.log(trial, "loss", {step: step for step in range(20)})
    etl()
    other = machine("other")
    lab.delete(Metric, Metric.step < 10)
    extract(other)
    lab.delete(Trial, Trial.id == trial)
    extract(other)
    monkeypatch.setattr(objects_module, "ABANDONED", timedelta(seconds=-5))
    merged = compact.compact(other, most=1)
    assert batches.series(settings) == [merged] == batches.series(other)
    # What it replaces is gone from the object store.
    folders = {key.split("/")[1] for key in Objects(settings).keys(remote_staging.FOLDER)}
    assert {folder.rpartition("-")[0] for folder in folders} == {merged.name, ""}
    etl()
    check(settings)


def test_a_batch_that_is_merged_while_it_is_fetched(settings, machine, lab, monkeypatch):
    fill(settings, lab, 3)
    other, download = machine("other"), Objects.download

    def late(self, key, path, sha256):
        monkeypatch.setattr(Objects, "download", download)
        compact.compact(settings, most=1)
        download(self, key, path, sha256)

    monkeypatch.setattr(objects_module, "ABANDONED", timedelta(seconds=-5))
    monkeypatch.setattr(Objects, "download", late)
    assert batches.series(other) == batches.series(settings)


# --- The mart


def test_readers_elsewhere_see_one_whole_version_after_another(settings, machine, build):
    build(settings, 0)
    publish(settings)
    reader = machine("reader")
    reads, read = os.pipe()

    def keep_reading():
        seen = []
        while seen[-1:] != [[(5,)]]:
            remote_mart.fetch(reader)
            seen.append(mart(reader, NUMBERS))
            os.write(read, b".")
        assert all(len(numbers) == 1 for numbers in seen)
        assert seen == sorted(seen)

    child = forked(keep_reading)
    for number in range(1, 6):
        assert os.read(reads, 1)  # at least one look for each version
        build(settings, number)
        assert publish(settings) == number + 1
    assert wait(child) == 0


def test_old_versions_go_but_not_while_a_reader_may_fetch_them(settings, build, monkeypatch):
    def stored():
        return sorted({k.split("/")[1].partition("-")[0] for k in Objects(settings).keys("mart")})

    for number in range(5):
        build(settings, number)
        publish(settings)
    assert stored() == ["1", "2", "3", "4", "5", "versions.json"]
    monkeypatch.setattr(versions, "GRACE_SECONDS", -1)
    build(settings, 5)
    publish(settings)
    assert stored() == ["4", "5", "6", "versions.json"]


def test_a_version_that_is_removed_while_it_is_fetched(settings, machine, build, monkeypatch):
    build(settings, 0)
    publish(settings)
    reader, bring = machine("reader"), remote_mart._bring

    def late(*arguments):
        monkeypatch.setattr(remote_mart, "_bring", bring)
        Objects(settings).delete(f"{arguments[2].folder}/{file}" for file in arguments[2].files)
        build(settings, 1)
        publish(settings)
        bring(*arguments)

    monkeypatch.setattr(remote_mart, "_bring", late)
    remote_mart.fetch(reader)
    assert mart(reader, NUMBERS) == [(1,)]


def test_of_two_that_publish_at_once_one_succeeds(settings, machine, build, monkeypatch):
    other, swap = machine("other"), Objects.swap
    build(settings, 1)
    build(other, 2)

    def late(*arguments):
        monkeypatch.setattr(Objects, "swap", swap)
        publish(other)
        return swap(*arguments)

    monkeypatch.setattr(Objects, "swap", late)
    with pytest.raises(
        WarehouseError, match=r"another machine has changed s3://.*run the ETL again"
    ):
        publish(settings)
    # Nor may it show older rows later.
    with pytest.raises(WarehouseError, match="another machine has published newer rows as version"):
        publish(settings)
    remote_mart.fetch(settings)
    assert mart(settings, NUMBERS) == [(2,)]


def test_a_series_that_was_replaced_is_not_published_again(settings, machine, lab, build):
    fill(settings, lab, 1)
    replaced = batches.series(settings)[-1].series
    build(settings, 1, replaced)
    publish(settings)
    other = machine("other")
    first = extract(other, afresh=True)
    build(other, 1, first.series)
    publish(other)
    build(settings, 9, replaced)
    with pytest.raises(WarehouseError, match="another machine has published newer rows"):
        publish(settings)


def test_a_publisher_that_dies_leaves_the_old_version(settings, machine, build, monkeypatch):
    build(settings, 1)
    publish(settings)
    build(settings, 2)
    reader = machine("reader")
    for name, shows in (("swap", 1), ("delete", 2)):

        def publish_and_die(name=name):
            monkeypatch.setattr(Objects, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            publish(settings)

        assert wait(forked(publish_and_die)) == -signal.SIGKILL
        remote_mart.fetch(reader)
        assert mart(reader, NUMBERS) == [(shows,)]
    build(settings, 3)
    assert publish(settings) == 3
    # What the first one left is nobody's, and goes when it is old.
    monkeypatch.setattr(objects_module, "ABANDONED", timedelta(seconds=-5))
    remote_mart.sweep(settings)
    listed = remote_mart.listed(Objects(settings).read(remote_mart.VERSIONS))
    assert {k.rpartition("/")[0] for k in Objects(settings).keys("mart")} == {
        "mart",
        *(version.folder for version in listed),
    }


# --- The pipeline


def test_machines_are_replaced_and_take_turns(settings, machine, lab, etl):
    rng = random.Random(1)
    lab.trial(lab.experiment(), {"LR": 1})
    for _ in range(20):
        lab.scribble(rng)
    etl()
    columns = mart(settings, COLUMNS)
    lab.trial(lab.experiment(), {"lr": 1})  # it would take the column, were that not kept
    new = machine("new")
    assert run_etl(new).mart_version == 2
    check(new)
    assert set(columns) < set(mart(new, COLUMNS))
    # The first one goes on where it was; a rebuild elsewhere reaches it.
    lab.scribble(rng)
    etl()
    check(settings)
    lab.scribble(rng)
    extract(new, afresh=True)
    lab.scribble(rng)
    etl()
    check(settings)
    remote_mart.fetch(new)
    check(new)


COLUMNS = "select name, column_name from intermediate.int_hyperparameter_columns"


def test_what_a_run_costs_and_an_object_store_that_is_away(settings, lab, etl, object_store):
    lab.trial(lab.experiment(), {"C": 1})
    etl()
    with object_store.counted() as counts:
        etl()
    # The documentation gives these figures: the list of batches is read three times, that of
    # versions once; there is a file for the only table that has changed, `etl_run`, and four of
    # the mart; a manifest, two lists.
    assert counts == {"GET": 4, "PUT": 8}
    with object_store.counted() as counts:
        remote_mart.fetch(settings)
    assert counts == {"GET": 1}

    before = set(Objects(settings).keys()), staged(settings)
    lab.trial(lab.experiment(), {"C": 1})
    with (
        object_store.failing(lambda *_: Refusal(503, "SlowDown")),
        pytest.raises(ObjectStoreError, match=r"answered 503 \(SlowDown\)"),
    ):
        etl()
    assert (set(Objects(settings).keys()), staged(settings)) == before
    assert len(mart(settings, "from marts.trials")) == 1
    etl()
    check(settings)


def survive(settings, other, reader, lab, wire, steps, rounds):
    """Kill runs on two machines at any step, while the object store fails now and then."""
    print(f"FAULT_SEED={SEED}, {steps} steps a run")
    for number in range(rounds):
        rng = random.Random(f"{SEED} {number}")
        print(f"round {number}")
        for _ in range(rng.randrange(1, 25)):
            lab.scribble(rng)

        def fault(method, key, rng=rng):
            return rng.choice([None] * 20 + [Refusal(503, "SlowDown"), LOST])

        here = rng.choice([settings, other])
        last_step = round((number + rng.random()) * steps / rounds) + 1
        with wire.failing(fault):
            children = [forked(lambda here=here, at=last_step: doomed(here, at))]
            if rng.random() < 0.3:
                there = other if here is settings else settings
                children.append(forked(lambda there=there: run_etl(there)))
            assert all(wait(child) in (-signal.SIGKILL, 0, 2) for child in children)
        for _ in range(rng.randrange(3)):
            lab.scribble(rng)
        run_etl(rng.choice([settings, other]))
        remote_mart.fetch(reader)
        check(reader)


@pytest.fixture
def machines(settings, machine, lab, monkeypatch):
    """Two machines that run the pipeline, one that reads, and the number of a run's steps."""
    # dbt parses the project anew for another machine's paths, and the threads of its parser do
    # not live on in forks.
    monkeypatch.setenv("DBT_STATIC_PARSER", "false")
    lab.experiment()
    reader, writer = os.pipe()
    assert wait(forked(lambda: doomed(settings, None, writer))) == 0
    os.close(writer)
    return settings, machine("other"), machine("reader"), int(os.read(reader, 20))


def test_killed_anywhere(machines, lab, object_store):
    *machines, steps = machines
    survive(*machines, lab, object_store, steps, rounds=3)


@pytest.mark.long
def test_killed_anywhere_again_and_again(machines, lab, object_store):
    *machines, steps = machines
    survive(*machines, lab, object_store, steps, rounds=100)
