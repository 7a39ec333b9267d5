"""The models' part of docs/grids.md, written from their hyperparameters: python -m this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training import models

PAGE = Path(__file__).parents[1] / "docs" / "grids.md"
BEGIN, END = "<!-- models: made by python -m training.documentation -->", "<!-- /models -->"
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
}


def describe_models() -> str:
    """Markdown: a section for each model, with a table of its hyperparameters."""
    return "\n".join(_section(name) for name in models.names())


def renew(page: str) -> str:
    """A page with the part between the marks written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{describe_models()}\n{END}{after}"


def _section(name: str) -> str:
    model = models.get(name)
    schema = model.hyperparameters.model_json_schema()["properties"]
    rows = [
        f"| `{field}` | {_type(facts)} | `{facts['default']}` | {facts['description']} |"
        for field, facts in schema.items()
    ]
    return (
        f"### `{name}`\n\n{models.describe(name)} For {' and '.join(model.tasks)}; "
        f"{model.library}.\n\n| hyperparameter | values | default | |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _type(facts: dict[str, Any]) -> str:
    """What a hyperparameter may be, in words, from its JSON schema."""
    if "anyOf" in facts:
        return " or ".join(_type(choice) for choice in facts["anyOf"])
    if "enum" in facts:
        return ", ".join(f"`{value}`" for value in facts["enum"])
    if "const" in facts:
        return f"`{facts['const']}`"
    bounds = [text.format(facts[key]) for key, text in BOUNDS.items() if key in facts]
    return " ".join([facts["type"], ", ".join(bounds)]).strip()


if __name__ == "__main__":
    PAGE.write_text(renew(PAGE.read_text()))
