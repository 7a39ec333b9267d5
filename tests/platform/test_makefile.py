"""The Makefile is what people type: every target is explained, and errors say what to do."""

from __future__ import annotations

import re
import subprocess

from mled.settings import ROOT


def _make(*arguments):
    return subprocess.run(["make", *arguments], cwd=ROOT, text=True, capture_output=True)


def test_help_is_the_default_and_names_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    shown = _make().stdout
    assert all(f"make {target} " in shown for target in targets)


def test_a_python_that_is_not_there_is_named():
    done = _make("install", "PYTHON=python9.9")
    assert done.returncode != 0
    assert "python9.9 is not there" in done.stderr and "PYTHON=/path/to/python3.11" in done.stderr


def test_a_wrong_setting_stops_the_installation_in_one_line(monkeypatch):
    monkeypatch.setenv("MLED_WORKERS", "many")
    done = _make("-s", "install")
    assert done.returncode != 0
    assert done.stderr.startswith("make: MLED_WORKERS='many' is not a whole number")
    assert "Traceback" not in done.stderr


def test_a_benchmark_needs_a_name():
    assert "make bench NAME=" in _make("bench").stderr


def test_continuous_integration_runs_what_the_readme_gives():
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make test"
