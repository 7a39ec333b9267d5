"""Peers of ours, each in an environment of its own beside ours, made on first use."""

from __future__ import annotations

import subprocess
import sys

from mled.settings import ROOT


def python_of(name: str, *requirements: str) -> str:
    """Path of the Python of the environment `.venv-bench-<name>`, with these packages installed."""
    folder = ROOT / f".venv-bench-{name}"
    python = folder / "bin" / "python"
    uv = str(ROOT / ".venv" / "bin" / "uv")
    if not (folder / ".complete").exists():
        print(f"installing {', '.join(requirements)} into {folder.name} …", flush=True)
        subprocess.run(
            [uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True
        )
        subprocess.run([uv, "pip", "install", "-q", "-p", str(python), *requirements], check=True)
        (folder / ".complete").touch()
    return str(python)
