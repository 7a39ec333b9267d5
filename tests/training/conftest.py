"""What the tests of grids share."""

from __future__ import annotations

import pytest

from training import models


@pytest.fixture
def add_model(tmp_path, monkeypatch):
    """Write a model file as a person would: `add_model("name", source)`."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])

    def add(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source)

    yield add
    import sys

    for file in folder.glob("*.py"):
        sys.modules.pop(f"training.models.{file.stem}", None)
    models.get.cache_clear()
