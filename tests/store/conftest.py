"""The store's tests run on each database that it supports."""

import pytest


@pytest.fixture
def settings(either_store):
    """Settings of an empty home, for each kind of store."""
    return either_store


@pytest.fixture
def sqlite_only(settings):
    """For what only SQLite has."""
    if not settings.store.startswith("sqlite"):
        pytest.skip("this is about SQLite's file")
