"""Each secret is generated once and stays private."""

from __future__ import annotations

import multiprocessing
import stat

import pytest

from mled.secrets import SecretError, secret


def _mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_stays_the_same(settings):
    first = secret(settings, "key")
    assert secret(settings, "key") == first
    assert secret(settings, "other") != first


def test_the_length_follows_from_the_bytes(settings):
    assert len(secret(settings, "short", 16)) < len(secret(settings, "long", 64))


def test_only_the_owner_can_read_it(settings):
    settings.secrets.mkdir(mode=0o755, parents=True)
    secret(settings, "key")
    assert _mode(settings.secrets) == 0o700
    assert _mode(settings.secrets / "key") == 0o600


def test_a_value_put_there_by_a_person_is_used(settings):
    settings.secrets.mkdir(parents=True)
    (settings.secrets / "key").write_text("correct horse\n")
    assert secret(settings, "key") == "correct horse"


def test_an_empty_file_is_refused_by_name(settings):
    settings.secrets.mkdir(parents=True)
    (settings.secrets / "key").write_text("\n")
    with pytest.raises(SecretError, match=r"secrets/key is empty"):
        secret(settings, "key")


def _ask(settings, start, answers):
    start.wait()
    answers.put([secret(settings, f"key{i}") for i in range(50)])


def test_processes_that_ask_at_the_same_time_get_the_same_secrets(settings):
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=_ask, args=(settings, start, answers)) for _ in range(start.parties)
    ]
    for process in processes:
        process.start()
    first, *others = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert all(other == first for other in others)
    assert sorted(path.name for path in settings.secrets.iterdir()) == sorted(
        f"key{i}" for i in range(50)
    )
