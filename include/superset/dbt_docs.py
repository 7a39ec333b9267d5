"""What dbt's own files say of the marts: the one place where tables and columns are described."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

_DOC = re.compile(r"\{%\s*docs\s+(\w+)\s*%\}(.*?)\{%\s*enddocs\s*%\}", re.DOTALL)
_REFERENCE = re.compile(r"\{\{\s*doc\(['\"](\w+)['\"]\)\s*\}\}")


@dataclass(frozen=True)
class Column:
    """A column; `type` is empty in a model without a contract."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Model:
    """A mart."""

    name: str
    description: str
    columns: dict[str, Column] = field(default_factory=dict)


Models = dict[str, Model]


def source_files(project: Path) -> list[Path]:
    """The files that `read_models` reads."""
    models = project / "models"
    folders = [models / "marts", models / "analyses"]
    described = [path for folder in folders for path in folder.glob("*.yml")]
    return sorted([*described, *models.glob("**/*.md")])


def read_models(project: Path) -> Models:
    """The marts of the dbt project in the folder `project`, by name.

    Raises:
        KeyError: a description refers to a text that no .md file has.
    """
    files = source_files(project)
    docs = {
        name: _one_line(text)
        for path in files
        if path.suffix == ".md"
        for name, text in _DOC.findall(path.read_text(encoding="utf-8"))
    }

    def text(raw: str | None) -> str:
        return _one_line(_REFERENCE.sub(lambda match: docs[match[1]], raw or ""))

    return {
        model["name"]: Model(
            model["name"],
            text(model.get("description")),
            {
                column["name"]: Column(
                    column["name"],
                    column.get("data_type", "").upper(),
                    text(column.get("description")),
                )
                for column in model.get("columns", [])
            },
        )
        for path in files
        if path.suffix == ".yml"
        for model in yaml.safe_load(path.read_text(encoding="utf-8")).get("models", [])
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())
