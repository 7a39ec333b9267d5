"""The benchmarks: nothing that they run is missing from the repository."""

import re

from mled.settings import ROOT

BENCH = ROOT / "bench"


def test_every_module_that_a_benchmark_names_is_there():
    text = "".join(path.read_text() for path in BENCH.rglob("*.py"))
    named = set(re.findall(r"\bbench\.([a-z_]+)", text)) | set(
        re.findall(r"from bench import (\w+)", text)
    )
    assert "grid_peers" in named
    assert {name for name in named if not (BENCH / f"{name}.py").exists()} == set()
