"""What the product's Dockerfiles say."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Image:
    """An image as its Dockerfile describes it.

    Attributes:
        base: what it builds on.
        workdir: where its commands run.
        environment: what ENV sets.
        command: what CMD says.
        steps: the others in their order: instruction, and the rest of its line.
    """

    base: str = ""
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)


def read(path: Path) -> Image:
    """Read a Dockerfile with one stage."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    image = Image()
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            image.base = rest
        elif instruction == "WORKDIR":
            image.workdir = rest
        elif instruction == "ENV":
            image.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif instruction == "CMD":
            image.command = json.loads(rest)
        image.steps.append((instruction, rest))
    return image
