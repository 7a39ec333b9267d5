"""Objects in an S3-compatible server: swaps, checks, failures, and what people are told."""

from __future__ import annotations

import hashlib
import os
import threading
from datetime import timedelta

import pytest

from mled import objects as module
from mled.objects import MissingObjectError, Objects, ObjectStoreError
from mled.settings import SettingsError, load
from tests.object_store import LOST, Refusal


@pytest.fixture
def objects(object_store):
    return Objects(load())


def put(objects, tmp_path, key, content=b"content"):
    path = tmp_path / "sent"
    path.write_bytes(content)
    objects.upload(path, key)
    return hashlib.sha256(content).hexdigest()


def test_a_file_comes_back_as_it_was_sent(objects, tmp_path, monkeypatch):
    digest = put(objects, tmp_path, "a/b", b"x" * 100_000)
    objects.download("a/b", tmp_path / "got", digest)
    assert (tmp_path / "got").read_bytes() == b"x" * 100_000
    assert list(objects.keys("a")) == ["a/b"]
    assert objects.exists("a/b")
    objects.delete(["a/b", "a/never was"])
    assert not objects.exists("a/b")
    assert objects.read("a/b") is None


def test_a_large_file_is_sent_in_parts(objects, object_store, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 5 * 2**20)  # the least that S3 allows
    content = os.urandom(11 * 2**20)
    with object_store.counted() as counts:
        digest = put(objects, tmp_path, "large", content)
    assert counts == {"POST": 2, "PUT": 3}
    objects.download("large", tmp_path / "got", digest)
    assert (tmp_path / "got").read_bytes() == content


def test_of_many_that_swap_at_once_one_succeeds(objects):
    seen = objects.read("pointer")
    for round in range(3):
        start, won = threading.Barrier(8), []

        def swap(n, seen=seen, start=start, won=won, round=round):
            start.wait()
            if objects.swap("pointer", f"{round} {n}".encode(), seen):
                won.append(n)

        threads = [threading.Thread(target=swap, args=[n]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = objects.read("pointer")
        assert [f"{round} {n}".encode() for n in won] == [seen.content]


def test_a_swap_whose_answer_was_lost_has_succeeded(objects, object_store):
    assert objects.swap("pointer", b"first", None)
    first = objects.read("pointer")
    faults = iter([LOST])
    with object_store.failing(lambda method, key: next(faults, None)):
        assert objects.swap("pointer", b"second", first)
    assert not objects.swap("pointer", b"third", first)
    assert objects.read("pointer").content == b"second"


def test_a_server_that_ignores_conditions_is_refused(objects, monkeypatch):
    put_object = objects._client.put_object

    def careless(**arguments):
        arguments.pop("IfMatch", None), arguments.pop("IfNoneMatch", None)
        return put_object(**arguments)

    monkeypatch.setattr(objects._client, "put_object", careless)
    with pytest.raises(ObjectStoreError, match="ignores conditional writes"):
        objects.swap("a/pointer", b"first", None)
    assert not objects.keys("a")


def test_what_is_damaged_is_not_handed_on(objects, tmp_path):
    put(objects, tmp_path, "a", b"content")
    with pytest.raises(ObjectStoreError, match="mled/a is damaged: its SHA-256 is"):
        objects.download("a", tmp_path / "got", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(MissingObjectError, match="mled/b is not there"):
        objects.download("b", tmp_path / "got", "")
    assert not (tmp_path / "got").exists()


def test_passing_failures_are_not_noticed(objects, object_store, tmp_path):
    faults = iter([Refusal(503, "SlowDown"), Refusal(500, "InternalError"), LOST, None] * 2)
    with object_store.failing(lambda method, key: next(faults, None)):
        digest = put(objects, tmp_path, "a")
        objects.download("a", tmp_path / "got", digest)
    assert next(faults, "all were met") == "all were met"


def test_what_dead_processes_left_goes_when_it_is_old(objects, tmp_path, monkeypatch):
    for key in ("a/list", "a/kept/1", "a/kept/2", "a/left/1", "b/other"):
        put(objects, tmp_path, key)
    objects.sweep("a", ["a/list", "a/kept"])
    assert len(objects.keys("a")) == 4
    monkeypatch.setattr(module, "ABANDONED", timedelta(seconds=-5))
    objects.sweep("a", ["a/list", "a/kept"])
    assert list(objects.keys("a")) == ["a/kept/1", "a/kept/2", "a/list"]
    assert objects.exists("b/other")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "InvalidAccessKeyId", r"refused .*InvalidAccessKeyId.*AWS_ACCESS_KEY_ID and AWS_SEC"),
        (403, "AccessDenied", "let this user read, write, list and delete"),
        (404, "NoSuchBucket", r"there is no bucket 'bucket-\w+' at http.*: create it"),
        (503, "SlowDown", r"answered 503 \(SlowDown\) to 5 attempts: try again"),
        (400, "AuthorizationHeaderMalformed", "in another region: set AWS_REGION"),
    ],
)
def test_what_the_server_refuses_is_explained(objects, object_store, status, code, message):
    with (
        object_store.failing(lambda *_: Refusal(status, code)),
        pytest.raises(ObjectStoreError, match=f"MLED_OBJECT_STORE=s3://bucket.*{message}"),
    ):
        objects.read("a")


def test_a_server_that_is_away(object_store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:password@127.0.0.1:9")
    with pytest.raises(ObjectStoreError) as caught:
        Objects(load()).read("a")
    assert "http://127.0.0.1:9 does not answer (EndpointConnectionError)" in str(caught.value)
    assert "AWS_ENDPOINT_URL" in str(caught.value)
    assert "password" not in str(caught.value)


def test_an_address_that_is_none(object_store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nowhere")
    with pytest.raises(ObjectStoreError, match="Invalid endpoint: nowhere; correct the AWS_"):
        Objects(load())


def test_no_credentials(object_store, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(ObjectStoreError, match="needs credentials: set AWS_ACCESS_KEY_ID"):
        Objects(load()).read("a")


@pytest.mark.parametrize("value", ["bucket", "s3://", "s3://b/x/", "s3://key:secret@bucket/x"])
def test_a_setting_of_the_wrong_form(value):
    with pytest.raises(SettingsError, match=r"MLED_OBJECT_STORE=.*s3://BUCKET/PREFIX") as caught:
        load({"MLED_OBJECT_STORE": value})
    assert "secret" not in str(caught.value)
