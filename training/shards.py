"""Shards: which trials one task runs in a row.

Starting a task costs a few tenths of a second whatever it does, so many small ones waste the
cores; few large ones leave cores idle at the end. So shards shrink: each takes a share of what is
left, the last ones just enough to be worth a task.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

MAX_SHARDS = 500
SHORTEST_S = 2.0  # a task with less work spends its time on starting
LONGEST_S = 300.0  # so that pausing a run takes effect, and its progress shows
# What part of a worker's share the last shards are: at most, since trials may take longer than what
# was measured of others; and exactly, while nothing is measured.
TAIL_AT_MOST, TAIL_UNMEASURED = 6, 16


def cut(
    trial_ids: Sequence[int],
    workers: int,
    trial_seconds: float | None = None,
    trials_per_task: int = 0,
) -> list[list[int]]:
    """Divide trials, in their order, into at most `MAX_SHARDS` shards.

    `trial_seconds` is what a trial of this kind has taken so far, None when none has run;
    `trials_per_task` is the size a person asks for, 0 for sizes that shrink.
    """
    left = len(trial_ids)
    if trials_per_task:
        size = max(trials_per_task, math.ceil(left / MAX_SHARDS))
        return [list(trial_ids[i : i + size]) for i in range(0, left, size)]
    if trial_seconds is None:
        shortest, longest = left // (workers * TAIL_UNMEASURED), left
    else:
        trial_seconds = max(trial_seconds, 1e-6)
        shortest = math.ceil(SHORTEST_S / trial_seconds)
        longest = max(shortest, int(LONGEST_S / trial_seconds))
    sizes = _sizes(left, workers, shortest, longest)
    while len(sizes) > MAX_SHARDS:
        shortest, longest = 2 * shortest, max(longest, 2 * shortest)
        sizes = _sizes(left, workers, shortest, longest)
    ends = itertools.accumulate(sizes)
    return [list(trial_ids[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def _sizes(left: int, workers: int, shortest: int, longest: int) -> list[int]:
    """Shards of half of a worker's share of what is left each, between two bounds."""
    shortest = max(1, min(shortest, left // (TAIL_AT_MOST * workers)))
    sizes = []
    while left:
        size = min(left, max(shortest, min(longest, math.ceil(left / (2 * workers)))))
        sizes.append(size)
        left -= size
    return sizes


def pack(trial_ids: Sequence[int]) -> str:
    """Trial ids in their order as text, rising runs as ranges: "12-51,60,7"."""
    parts: list[list[int]] = []
    for id in trial_ids:
        if parts and id == parts[-1][1] + 1:
            parts[-1][1] = id
        else:
            parts.append([id, id])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)


def unpack(text: str) -> list[int]:
    """The trial ids that `pack` was given."""
    ids: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        ids += range(int(first), int(last or first) + 1)
    return ids
