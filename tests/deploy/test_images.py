"""What the Dockerfiles install, installed into an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mled import install
from mled.settings import ROOT
from tests.deploy import dockerfile

pytestmark = pytest.mark.long


def build(image: dockerfile.Image, folder: Path) -> None:
    """Do in `folder` what the image's user does in its working directory."""
    listing = [sys.executable, "-m", "pip", "config", "list"]
    pip = subprocess.run(listing, text=True, capture_output=True, check=True).stdout
    environment = install.uv_environment(install.pip_settings(pip), dict(os.environ))
    programs = folder.with_name("bin")
    programs.mkdir()
    (programs / "python").symlink_to(Path(sys.base_prefix) / "bin" / "python3.11")
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "TORCH_BACKEND": ""}
    folder.mkdir()
    user = "root"
    for step, rest in image.steps:
        if step == "USER":
            user = rest
        elif step == "COPY":
            *sources, target = [word for word in rest.split() if not word.startswith("--")]
            for source in sources:
                _copy(source, folder / target)
        elif step == "RUN" and user != "root" and "useradd" not in rest:
            subprocess.run(["sh", "-e", "-c", rest], cwd=folder, env=environment, check=True)


def _copy(source: str, target: Path) -> None:
    """Copy a file, or all that is under version control, as no more is in the image."""
    names = [source]
    if source == ".":
        listing = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True)
        names = listing.stdout.split("\n")[:-1]
    for name in names:
        place = target / name if source == "." else target / Path(name).name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, place)


def installed(python: Path) -> dict[str, str]:
    """Package → version, as an environment has them; build tags left out."""
    script = (
        "from importlib.metadata import distributions as d\nfor x in d(): print(x.name, x.version)"
    )
    listing = subprocess.run([python, "-c", script], text=True, capture_output=True, check=True)
    pairs = (line.split() for line in listing.stdout.splitlines())
    return {re.sub("[-_.]+", "-", name).lower(): v.partition("+")[0] for name, v in pairs}


@pytest.mark.parametrize(
    ("name", "python", "lock", "command"),
    [
        ("airflow", ".venv/bin/python", "requirements.txt", [".venv/bin/mled", "--help"]),
        ("superset", ".venv-superset/bin/python", "include/superset/requirements.txt",
         [".venv-superset/bin/gunicorn", "--version"]),
    ],
)  # fmt: skip
def test_an_image_has_what_the_lock_says_and_its_program_starts(
    tmp_path, name, python, lock, command
):
    folder = tmp_path / "mled"
    build(dockerfile.read(ROOT / "deploy" / f"{name}.Dockerfile"), folder)
    versions = installed(folder / python)
    pins = re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / lock).read_text())
    assert {n: versions.get(re.sub("[-_.]+", "-", n).lower()) for n, _ in pins} == dict(pins)
    subprocess.run([folder / command[0], *command[1:]], cwd=folder, check=True)
