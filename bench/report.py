"""How a benchmark reports: a table on the screen, and a JSON file with where it was run."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mled.store.provenance import environment

RESULTS = Path(__file__).parent / "results"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under a header; numbers are right-aligned, with thousands separated."""
    lines = [[str(cell) for cell in header], *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    print(f"\n{title}")
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells))
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))
    print(flush=True)


def write(name: str, results: dict[str, Any], packages: dict[str, str] | None = None) -> Path:
    """Write `bench/results/<name>.json`: the results, versions, date, machine and load.

    `packages` holds the versions of what was measured beside us, from its own environment.
    """
    facts = environment()
    ours = ("sqlalchemy", "duckdb", "dbt-core", "dbt-duckdb", "apache-airflow", "torch")
    content = {
        **results,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "size": os.environ.get("SIZE") or "default",
        "machine": facts["hardware"] | {"load_at_end": [round(x, 1) for x in os.getloadavg()]},
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ours},
            **(packages or {}),
        },
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return path


def _cell(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:,.3g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
