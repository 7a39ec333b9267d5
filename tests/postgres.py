"""A real PostgreSQL server for the tests, in a folder and on a port of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa


def binaries() -> Path | None:
    """The folder of the server's programs; None where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    path = shutil.which("initdb")
    return found[-1].parent if found else Path(path).parent if path else None


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server in a temporary folder; `url` is that of its `postgres` database.

    Only a `durable` one waits for the disk at each commit, as a real one does.
    """

    def __init__(self, durable: bool = False) -> None:
        self._fsync = "on" if durable else "off"
        self._folder = Path(tempfile.mkdtemp(prefix="mled-postgres-"))
        self._user = None
        if os.geteuid() == 0:  # the server refuses to run as root
            self._user = pwd.getpwnam("postgres")
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._port = free_port()
        self.url = f"postgresql+psycopg://mled@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-U", "mled", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self._port} -h 127.0.0.1 -k {self._folder} -c fsync={self._fsync}"
        options += " -c max_connections=200"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once, as a crash does; what was committed is there after the next start."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def delete(self) -> None:
        """Delete its folder; it must not run."""
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [binaries() / program, "-D", str(self._folder / "data"), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            user=self._user and self._user.pw_uid,
            group=self._user and self._user.pw_gid,
            extra_groups=[] if self._user else None,
        )


@contextlib.contextmanager
def running(durable: bool = False) -> Iterator[Server]:
    """Run a server while the block lasts."""
    server = Server(durable)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.delete()


@contextlib.contextmanager
def server(durable: bool = False) -> Iterator[str]:
    """Run a server while the block lasts; gives the URL of its `postgres` database."""
    with running(durable) as found:
        yield found.url


def new_database(url: str) -> str:
    """Create an empty database on a server; returns its URL."""
    name = f"mled_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)
