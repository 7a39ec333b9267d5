"""Steps of a longer command, each shown with the time it took."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from mled.processes import tail
from mled.settings import ROOT

NAME_WIDTH = 34


class StepError(RuntimeError):
    """A step failed; the message says why and where its output lies."""


class Steps:
    """Shows named steps as they end, and where the time went in all."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.done(name, time.monotonic() - began)

    @contextlib.contextmanager
    def rows(self, name: str, total: int) -> Iterator[Callable[[int], object]]:
        """A step over `total` rows; gives what to call with the number of rows just done.

        On a terminal it shows meanwhile how far it is, at which rate, and the time left.
        """
        began, rows = time.monotonic(), 0

        def rate() -> str:
            return f"{rows / max(time.monotonic() - began, 1e-9):,.0f} rows/s"

        with click.progressbar(
            length=total,
            show_pos=True,
            item_show_func=lambda _: rate(),
            label=f"  {name:<{NAME_WIDTH}}",
            file=None if sys.stdout.isatty() and total else io.StringIO(),
            width=20,
        ) as bar:

            def done(count: int) -> None:
                nonlocal rows
                rows += count
                bar.update(count)

            yield done
        if sys.stdout.isatty() and total:
            click.echo("\x1b[1A\x1b[2K", nl=False)  # the step's own line takes the bar's place
        self.done(name, time.monotonic() - began, f"{rows:>14,} rows {rate():>16}" if rows else "")

    def done(self, name: str, seconds: float, note: str = "") -> None:
        """Show and remember a step that took `seconds`."""
        self.seconds[name] = seconds
        click.echo(f"  {name:<{NAME_WIDTH}}{seconds:7.1f} s{note}")

    def show_breakdown(self, total: float) -> None:
        """One paragraph: the seconds of each step, longest first. Steps may have overlapped."""
        longest = sorted(self.seconds.items(), key=lambda item: -item[1])
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in longest if seconds >= 0.1)
        text = f"{total:.1f} s in all: {parts}"
        click.echo(textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="    "))

    def parallel(self, tasks: dict[str, Callable[[], object]]) -> None:
        """Run independent steps at the same time; the first failure is raised once all ended."""

        def run(name: str) -> None:
            with self.step(name):
                try:
                    tasks[name]()
                except Exception as error:
                    raise StepError(f"{name}: {error}") from error

        if not tasks:
            return
        with ThreadPoolExecutor(len(tasks)) as pool:
            running = [pool.submit(run, name) for name in tasks]
        for future in running:
            future.result()


def run_logged(command: Sequence[str], environment: dict[str, str], log: Path) -> None:
    """Run a command with its output in `log`.

    Raises:
        StepError: it failed; the message ends with its last line of output.
    """
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        raise StepError(f"{tail(log, 1)}; all of it: {log}")
