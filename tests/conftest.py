"""Homes of their own for the tests, so that none touches a person's experiments."""

from __future__ import annotations

import os

import pytest

for _name in [name for name in os.environ if name.startswith("MLED_")]:
    del os.environ[_name]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty MLED_HOME."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MLED_HOME", str(folder))
    return folder


@pytest.fixture
def settings(home):
    """The settings of that home."""
    from mled import settings

    return settings.load()


@pytest.fixture
def database(settings):
    """An empty store."""
    from mled.store import connect

    return connect(settings)
