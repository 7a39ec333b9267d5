"""What a trial ran on and from: code version, packages, hardware, processor time and memory."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PROC = Path("/proc/self")


def code_version(folder: Path) -> dict[str, Any] | None:
    """Commit, dirtiness and hash of the uncommitted changes of the git checkout at `folder`.

    In an image there is no checkout: its commit lies in the file `COMMIT` of a folder above, as it
    was built from. None where there is neither.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        built = next((p for p in (d / "COMMIT" for d in folder.parents) if p.is_file()), None)
        text = built.read_text().strip() if built else ""
        return {"git_commit": text, "dirty": False, "diff_sha256": ""} if text else None
    dirty = bool(_git(folder, "status", "--porcelain"))
    changes = (_git(folder, "diff", "HEAD", "--binary") or b"") if dirty else b""
    return {
        "git_commit": commit.decode().strip(),
        "dirty": dirty,
        "diff_sha256": hashlib.sha256(changes).hexdigest() if changes else "",
    }


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@functools.cache
def environment() -> dict[str, Any]:
    """Python, operating system, installed packages and hardware, and the hash of them all."""
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items())),
        "hardware": {
            "cpu": _first_value(Path("/proc/cpuinfo"), "model name") or platform.processor(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "gpus": _gpus(),
        },
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return {"digest": digest, **facts}


def _gpus() -> list[str]:
    """Names of the GPUs that torch sees; none when torch was not imported."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _first_value(path: Path, key: str) -> str | None:
    try:
        with path.open() as lines:
            return next((s.partition(":")[2].strip() for s in lines if s.startswith(key)), None)
    except OSError:
        return None


class Meter:
    """Wall-clock seconds, processor seconds and peak memory since it was made."""

    def __init__(self):
        with contextlib.suppress(OSError):
            # 5 resets the peak of the resident set, so that it is this trial's and not that of
            # an earlier trial in the same process (Linux's proc(5)).
            (PROC / "clear_refs").write_text("5")
        self._wall = time.perf_counter()
        self._cpu = self._cpu_seconds()

    def read(self) -> dict[str, Any]:
        peak = _first_value(PROC / "status", "VmHWM")
        return {
            "duration_s": time.perf_counter() - self._wall,
            "cpu_s": self._cpu_seconds() - self._cpu,
            "peak_memory_bytes": int(peak.split()[0]) * 1024
            if peak
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }

    @staticmethod
    def _cpu_seconds() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system
