"""Homes of their own for the tests, so that none touches a person's experiments."""

from __future__ import annotations

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

from mled import settings as settings_module
from tests import postgres

for _name in [name for name in os.environ if name.startswith("MLED_")]:
    del os.environ[_name]


PLATFORM = ("tests/e2e/test_whole_path.py", "tests/e2e/test_dashboards.py")


def shared(nodeid: str) -> str:
    """What a test shares servers or set-up with: its file, or all that drives the platform."""
    file = nodeid.partition("::")[0]
    return "platform" if file in PLATFORM else file


# They start first when several processes run the tests: the others fill the time beside them.
LONGEST = ("platform", "tests/warehouse/test_faults.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(shared(item.nodeid), len(LONGEST)))


class Together(LoadScopeScheduling):
    """Runs the tests that share something in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return shared(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> Together:
    return Together(config, log)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty MLED_HOME."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MLED_HOME", str(folder))
    return folder


@pytest.fixture
def settings(home):
    """The settings of that home."""
    return settings_module.load()


@pytest.fixture(scope="session")
def postgres_server():
    """The URL of a PostgreSQL server of the tests' own."""
    if postgres.binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def either_store(request, home, monkeypatch):
    """The settings of a home whose store is in SQLite, then of one in PostgreSQL."""
    if request.param == "postgresql":
        url = postgres.new_database(request.getfixturevalue("postgres_server"))
        monkeypatch.setenv("MLED_STORE_URL", url)
    return settings_module.load()


@pytest.fixture
def database(settings):
    """An empty store."""
    from mled.store import connect

    return connect(settings)


@pytest.fixture(scope="session")
def s3_server():
    """A local S3 server."""
    from tests.object_store import Server

    with Server() as server:
        yield server


@pytest.fixture
def object_store(home, s3_server, monkeypatch):
    """The wire to a server with an empty bucket that `MLED_OBJECT_STORE` names."""
    from botocore.httpsession import URLLib3Session

    from tests.object_store import Wire

    monkeypatch.setenv("MLED_OBJECT_STORE", f"s3://{s3_server.new_bucket()}/mled")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    wire = Wire(s3_server)
    monkeypatch.setattr(URLLib3Session, "send", lambda *arguments: wire.send(*arguments))
    # Failed requests are sent again without a pause.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    return wire
