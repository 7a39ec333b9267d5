"""What stands in the way of a start is named, with the way out."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys

import pytest

from mled import health, processes, services
from mled.health import HealthError


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def ports(settings):
    """Settings with two free ports."""
    return dataclasses.replace(
        settings, airflow_port=_free_port(), superset_port=_free_port(), home=settings.home.parent
    )


def test_free_ports_are_fine(ports):
    health.check_ports(ports)


@pytest.mark.parametrize("name", ["airflow_port", "superset_port"])
def test_a_port_in_use_is_named_with_its_holder_and_its_variable(ports, name):
    with socket.socket() as server:
        server.bind((ports.host, getattr(ports, name)))
        server.listen()
        with pytest.raises(HealthError) as caught:
            health.check_ports(ports)
    message = str(caught.value)
    assert f"{ports.host}:{getattr(ports, name)}" in message
    assert f"process {os.getpid()}" in message
    assert f"MLED_{name.upper()}" in message and "\n" not in message


def test_a_full_disk_is_named_with_its_variable(ports):
    health.check_disk(ports)
    full = dataclasses.replace(ports, min_free_mb=999_999_999)
    with pytest.raises(HealthError, match=r"MB are free .* MLED_MIN_FREE_MB asks for 999999999"):
        health.check_disk(full)


def test_when_nothing_runs_everything_is_stopped(ports):
    problems = health.problems(ports, {})
    assert set(problems.values()) == {"stopped"} and len(problems) == 5


def test_a_program_that_dies_ends_the_wait_with_its_last_words(settings, sleepers, monkeypatch):
    crash = (sys.executable, "-c", "raise SystemExit('the database is gone')")
    sleepers[:] = [services.Program("willing", crash, {"NAME": "willing"})]
    processes.launch(settings)
    processes.start(settings)
    with pytest.raises(HealthError, match=r"willing does not stay up(.|\n)*the database is gone"):
        health.wait(settings, 60, lambda name, seconds: None)
