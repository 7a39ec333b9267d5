"""The background processes: start, look at and stop them, through supervisor.

Everything runs in the session of one supervisord. The session's number is kept in a file, so
that what a killed supervisord left behind is still found, and stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from supervisor.xmlrpc import SupervisorTransport

from mled import services
from mled.settings import Settings

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LAUNCH_SECONDS = 20
TERMINATE_SECONDS, KILL_SECONDS = 3, 10


class ProcessError(RuntimeError):
    """The process manager, or a program it runs, failed; the message says where to look."""


@dataclass(frozen=True)
class State:
    """One program as the process manager sees it; `started` in seconds since 1970."""

    name: str
    state: str
    pid: int
    started: float

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"

    @property
    def died(self) -> bool:
        """True when the program ended by itself, whether or not it is tried again."""
        return self.state in ("BACKOFF", "EXITED", "FATAL", "UNKNOWN")


def states(settings: Settings) -> dict[str, State]:
    """The programs by name, or nothing where the process manager is not running."""
    with _supervisor(settings) as supervisor:
        if supervisor is None:
            return {}
        return {
            info["name"]: State(info["name"], info["statename"], info["pid"], info["start"])
            for info in supervisor.getAllProcessInfo()
        }


def configuration_changed(settings: Settings) -> bool:
    """True when the process manager was started with another configuration than today's."""
    try:
        return _config_file(settings).read_text("utf-8") != services.supervisor_config(settings)
    except FileNotFoundError:
        return True


def launch(settings: Settings) -> None:
    """Start the process manager, without any program.

    Raises:
        ProcessError: it does not come up.
    """
    settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = _config_file(settings)
    config.touch(mode=0o600)
    config.write_text(services.supervisor_config(settings), encoding="utf-8")
    log = services.log_file(settings, "supervisord")
    with log.open("a") as output:
        process = subprocess.Popen(
            [str(services.BIN / "supervisord"), "-c", str(config)],
            env=services.inherited_environment(settings),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _write_session(settings, process.pid)
    deadline = time.monotonic() + LAUNCH_SECONDS
    while not states(settings):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ProcessError(f"supervisord does not start: {tail(log, 2)}; see {log}")
        time.sleep(0.1)


def start(settings: Settings) -> list[str]:
    """Start every program that does not run, and return their names."""
    with _supervisor(settings) as supervisor:
        down = [s.name for s in states(settings).values() if not s.running]
        for name in down:
            try:
                supervisor.startProcess(name, False)
            except xmlrpc.client.Fault as fault:
                if "ALREADY_STARTED" not in fault.faultString:
                    log = services.log_file(settings, name)
                    raise ProcessError(
                        f"{name} cannot start: {fault.faultString}; see {log}"
                    ) from None
        return down


def restart(settings: Settings, name: str) -> None:
    """Stop the program and start it again, if it runs."""
    with _supervisor(settings) as supervisor:
        if supervisor and states(settings)[name].running:
            supervisor.stopProcess(name)
            supervisor.startProcess(name, False)


def stop(settings: Settings) -> int:
    """Stop everything and wait for it; returns how many processes were stopped."""
    before = list(members(settings))
    with _supervisor(settings) as supervisor:
        if supervisor is not None:
            # The scheduler first: its tasks report how they ended to the API server.
            with contextlib.suppress(xmlrpc.client.Fault):
                supervisor.stopProcess("scheduler")
            supervisor.stopAllProcesses()
            supervisor.shutdown()
    # A command in a session of its own is not found any more once its parent is gone.
    _kill({*before, *members(settings)})
    for path in (_session_file(settings), services.socket_path(settings)):
        path.unlink(missing_ok=True)
    return len(before)


def members(settings: Settings) -> Iterator[psutil.Process]:
    """The living processes of the process manager's session, and all that descend from them."""
    session = _read_session(settings)
    if session is None:
        return
    seen = set()
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) != session:
                continue
            # A task's command may have a session of its own.
            for member in (process, *process.children(recursive=True)):
                if member.pid not in seen and member.status() != psutil.STATUS_ZOMBIE:
                    seen.add(member.pid)
                    yield member


def memory(process: psutil.Process) -> int:
    """Bytes that the process and its descendants hold, what they share counted once."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            try:
                total += member.memory_full_info().pss
            except psutil.AccessDenied:
                total += member.memory_info().rss
    return total


def tail(path: Path, lines: int) -> str:
    """The last lines of a log that are not empty."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def _config_file(settings: Settings) -> Path:
    return settings.run / "supervisord.conf"


def _session_file(settings: Settings) -> Path:
    return settings.run / "session.json"


@contextlib.contextmanager
def _supervisor(settings: Settings):
    """The process manager's remote interface, or None when nobody answers."""
    transport = SupervisorTransport(serverurl=f"unix://{services.socket_path(settings)}")
    server = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
    try:
        server.supervisor.getState()
    except (OSError, xmlrpc.client.Error):
        yield None
    else:
        yield server.supervisor
    finally:
        transport.close()


def _write_session(settings: Settings, leader: int) -> None:
    record = {
        "session": leader,
        "started": psutil.Process(leader).create_time(),
        "boot": BOOT_ID.read_text().strip(),
    }
    _session_file(settings).write_text(json.dumps(record) + "\n", encoding="utf-8")


def _read_session(settings: Settings) -> int | None:
    """The session's number, unless it belongs to an earlier boot or to somebody else by now."""
    try:
        record = json.loads(_session_file(settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if record["boot"] != BOOT_ID.read_text().strip():
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(record["session"]).create_time() - record["started"]) > 1:
            return None
    return record["session"]


def _kill(processes: Iterable[psutil.Process]) -> None:
    """Ask those that live to stop, then kill those that do not."""
    processes = [process for process in processes if process.is_running()]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=TERMINATE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(alive, timeout=KILL_SECONDS)
    if alive:
        pids = ", ".join(str(process.pid) for process in alive)
        raise ProcessError(f"these processes cannot be killed: {pids}")
