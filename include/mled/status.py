"""A table of the programs: do they run, since when, how large, do they answer; and the data."""

from __future__ import annotations

import time

import click
import psutil

from mled import health, processes, services
from mled.settings import Settings
from mled.warehouse import places

ROW = "{:<15}{:<10}{:>8}{:>12}{:>10}  {:<27}{}"


def show(settings: Settings) -> bool:
    """Print the table; True when every program runs and answers."""
    states = processes.states(settings)
    problems = health.problems(settings, states)
    total = 0
    click.echo(ROW.format("program", "state", "pid", "uptime", "memory", "URL", "health"))
    urls = {program.name: program.url for program in services.programs(settings)}
    for name in urls:
        state = states.get(name)
        pid = uptime = size = "-"
        if state and state.running:
            pid, uptime = state.pid, _duration(time.time() - state.started)
            used = processes.memory(psutil.Process(state.pid))
            total += used
            size = f"{used / 2**20:.0f} MiB"
        text = state.state.lower() if state else "stopped"
        row = (name, text, pid, uptime, size, urls[name], problems.get(name, "healthy"))
        click.echo(ROW.format(*row))
    if total:
        click.echo(f"memory in all: {total / 2**20:.0f} MiB (shared memory counted once)")
    try:
        for line in places.lines(settings):
            click.echo(line)
    except OSError as error:  # of the object store
        click.echo(str(error))
        return False
    return not problems


def _duration(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    clock = f"{hours}:{minutes:02}:{rest:02}"
    return f"{days} d {clock}" if days else clock
