"""Runs the services of docker-compose.yml without a container engine.

Each container is a process with its own network, host name and mounts, with the user, environment,
volumes, secrets and command that the file gives it, and starts when the file says so. What an image
would bring is what is installed on this machine. Needs root, and Linux's network namespaces.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mled.settings import ROOT
from tests import postgres
from tests.deploy import dockerfile

FILE = ROOT / "docker-compose.yml"
HERE = Path(__file__).parent
START_SECONDS, CHECK_SECONDS = 240, 2
HOME = "/home/mled"
SUBNET = "10.213.77"
# The user of our images; those of the others have names that Debian's packages use too.
USERS = {"mled-airflow": 50000, "mled-superset": 50000}
VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:?-)([^}]*))?\})")


class EngineError(RuntimeError):
    """A container does not come to what the file asks of it; the message ends with its log."""


def unavailable() -> str | None:
    """Why this cannot run here; None when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "unshare", "nsenter", "setpriv", "redis-server"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if postgres.binaries() is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    probe = f"mled-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True)
    return f"no network namespaces: {made.stderr.strip()}" if made.returncode else None


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file's content with its variables filled in."""
    return _interpolated(yaml.safe_load(FILE.read_text()), variables)


def _interpolated(node: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolated(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, variables) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match) -> str:
        name, operator, default = match.groups()
        if name is None:
            return "$"
        found = variables.get(name)
        return (default or "") if found is None or (operator == ":-" and not found) else found

    return VARIABLE.sub(value, node)


@dataclass
class Container:
    """One container of a service.

    Attributes:
        name: of the container, and of its network namespace.
        service: its part of the file.
        address: its own, in the network of the file.
        process: what runs in it; None before it is started.
        wanted: whether it is started again when it ends.
    """

    name: str
    service: dict[str, Any]
    address: str
    log: Path
    process: subprocess.Popen | None = None
    wanted: bool = False
    healthy: bool = field(default=False)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Engine:
    """The services of the file; use it as a context manager.

    Attributes:
        containers: service → its containers.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str], scale: Mapping[str, int]):
        """`folder` gets volumes, secrets and logs; `scale` is service → number of containers."""
        self.folder = folder
        self.file = load(variables)
        self.containers: dict[str, list[Container]] = {}
        self._prefix = f"mled{os.getpid() % 10_000}"
        self._mount_points: list[Path] = []
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        address = 2
        for name, service in self.file["services"].items():
            self.containers[name] = []
            for number in range(1, scale.get(name, 1) + 1):
                self.containers[name].append(
                    Container(
                        f"{self._prefix}-{name}-{number}",
                        service,
                        f"{SUBNET}.{address}",
                        folder / "logs" / f"{name}-{number}.log",
                    )
                )
                address += 1

    def __enter__(self) -> Engine:
        (self.folder / "logs").mkdir(parents=True)
        self._make_secrets()
        try:
            self._make_network()
            self._make_mount_points()
        except BaseException:
            self.__exit__()
            raise
        self._keeper = threading.Thread(target=self._keep_running, daemon=True)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for containers in reversed(self.containers.values()):
            for container in containers:
                self.kill(container)
        for containers in self.containers.values():
            for container in containers:
                _ip("netns", "delete", container.name, check=False)
                shutil.rmtree(Path("/etc/netns") / container.name, ignore_errors=True)
        _ip("link", "delete", self._prefix, check=False)
        for path in reversed(self._mount_points):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    def up(self) -> None:
        """Start every service in its turn, and wait until each has what others need of it.

        Raises:
            EngineError: a container ends too early or does not become healthy.
        """
        waiting = list(self.containers)
        while waiting:
            ready = [name for name in waiting if self._may_start(name)]
            if not ready:
                raise EngineError(f"nothing can start any more; left are {waiting}")
            for name in ready:
                waiting.remove(name)
                for container in self.containers[name]:
                    self.start(container)
        for name in self.containers:
            self._wait(name, "service_healthy" if self._check(name) else "service_started")

    def start(self, container: Container) -> None:
        """Start a container, for the first time or again."""
        with self._lock, container.log.open("ab") as log:
            container.process = subprocess.Popen(
                self._command(container),
                env=self._environment(container),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            container.wanted = True

    def kill(self, container: Container) -> None:
        """Kill everything in a container, as if its machine had died; it stays down."""
        with self._lock:
            container.wanted = False
            while pids := _ip("netns", "pids", container.name, check=False).split():
                subprocess.run(["kill", "-KILL", *pids], capture_output=True)
                time.sleep(0.05)
            if container.process is not None:
                container.process.wait()

    def execute(self, container: Container, *command: str) -> subprocess.CompletedProcess:
        """Run a command inside a container, as `docker compose exec` does."""
        assert container.process is not None
        inside = ["nsenter", "--target", str(container.process.pid), "--net", "--mount", "--uts"]
        return subprocess.run(
            [*inside, f"--wd={self._workdir(container)}", *self._as_user(container), *command],
            env=self._environment(container),
            text=True,
            capture_output=True,
        )

    def _may_start(self, name: str) -> bool:
        """Wait for what a service depends on; False when that was not even started."""
        needs = self.file["services"][name].get("depends_on", {})
        if any(c.process is None for need in needs for c in self.containers[need]):
            return False
        for need, how in needs.items():
            self._wait(need, how["condition"])
        return True

    def _wait(self, name: str, condition: str) -> None:
        end = time.monotonic() + START_SECONDS
        for container in self.containers[name]:
            while not self._fulfils(container, condition):
                if time.monotonic() > end:
                    raise EngineError(f"{name}: no {condition}\n{self._tail(container)}")
                time.sleep(CHECK_SECONDS)

    def _fulfils(self, container: Container, condition: str) -> bool:
        if condition == "service_completed_successfully":
            return container.process.poll() == 0
        if condition == "service_started":
            return True
        if not container.healthy and container.running:
            test = container.service["healthcheck"]["test"]
            command = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
            container.healthy = self.execute(container, *command).returncode == 0
        return container.healthy

    def _check(self, name: str) -> bool:
        return "healthcheck" in self.file["services"][name]

    def _keep_running(self) -> None:
        """Start again what has ended, as the restart policy asks."""
        while not self._stopping.wait(1):
            for containers in self.containers.values():
                for container in containers:
                    with self._lock:
                        ended = container.wanted and not container.running
                        if ended and self._restarts(container):
                            self.start(container)

    @staticmethod
    def _restarts(container: Container) -> bool:
        policy = container.service["restart"]
        return policy == "unless-stopped" or (
            policy == "on-failure" and container.process.returncode != 0
        )

    def _command(self, container: Container) -> list[str]:
        """The command line that plays the container's start."""
        image = _image(container.service)
        command = container.service.get("command") or self._built(container).command
        if image == "postgres":
            command = [str(HERE / "postgres-entrypoint.sh"), *command]
        steps = [f"hostname {container.name}"]
        for source, target, mode in self._mounts(container):
            steps.append(f"mount --bind {shlex.quote(str(source))} {target}")
            if mode == "ro":
                steps.append(f"mount -o remount,ro,bind {target}")
        steps += [f"cd {self._workdir(container)}", 'exec "$@"']
        script = "set -e\n" + "\n".join(steps)
        enter = ["ip", "netns", "exec", container.name, "unshare", "--uts", "--"]
        return [*enter, "sh", "-c", script, "sh", *self._as_user(container), *command]

    def _mounts(self, container: Container) -> Iterator[tuple[Path, str, str]]:
        """Source, target and mode of what the container sees in other places."""
        yield self.folder / "homes" / container.name, HOME, "rw"
        if _image(container.service).startswith("mled-"):
            yield ROOT, self._built(container).workdir, "ro"
        for volume in container.service.get("volumes", []):
            source, target, mode = (*volume.split(":"), "rw")[:3]
            named = self.folder / "volumes" / source
            yield (ROOT / source if source.startswith(".") else named), target, mode
        for name in container.service.get("secrets", []):
            yield self.folder / "secrets" / name, f"/run/secrets/{name}", "ro"

    def _environment(self, container: Container) -> dict[str, str]:
        built = self._built(container).environment if self._is_ours(container) else {}
        given = {k: str(v) for k, v in container.service.get("environment", {}).items()}
        path = f"{postgres.binaries()}:/usr/sbin:/usr/bin:/sbin:/bin"
        ours = {"PATH": path, "HOME": HOME, "USER": "mled", "LOGNAME": "mled"}
        result = {**ours, **built, **given}
        return result | {"PATH": result["PATH"].replace("$PATH", path)}

    def _as_user(self, container: Container) -> list[str]:
        # The user may read, not write, all that is root's: Python itself may lie in such a place.
        reading = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
        user = [f"--reuid={self._user(container)}", "--regid=0", "--clear-groups"]
        return ["setpriv", *user, *reading]

    def _user(self, container: Container) -> str:
        return str(container.service.get("user") or USERS[_image(container.service)])

    def _workdir(self, container: Container) -> str:
        return self._built(container).workdir if self._is_ours(container) else "/"

    @staticmethod
    def _is_ours(container: Container) -> bool:
        return "build" in container.service

    @staticmethod
    def _built(container: Container) -> dockerfile.Image:
        return dockerfile.read(ROOT / container.service["build"]["dockerfile"])

    def _make_secrets(self) -> None:
        secrets = self.folder / "secrets"
        maker = ROOT / "deploy" / "make_secrets.py"
        subprocess.run(["python3", str(maker), str(secrets)], check=True, capture_output=True)

    def _make_network(self) -> None:
        bridge = self._prefix
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{SUBNET}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        hosts = "127.0.0.1 localhost\n" + "".join(
            f"{container.address} {name} {container.name}\n"
            for name, containers in self.containers.items()
            for container in containers
        )
        for number, container in enumerate(c for cs in self.containers.values() for c in cs):
            files = Path("/etc/netns") / container.name
            files.mkdir(parents=True)
            (files / "hosts").write_text(hosts)
            _ip("netns", "add", container.name)
            outer, inner = f"{self._prefix}v{number}", "eth0"
            _ip("link", "add", outer, "type", "veth", "peer", inner, "netns", container.name)
            _ip("link", "set", outer, "master", bridge, "up")
            _ip("-n", container.name, "address", "add", f"{container.address}/24", "dev", inner)
            _ip("-n", container.name, "link", "set", inner, "up")
            _ip("-n", container.name, "link", "set", "lo", "up")

    def _make_mount_points(self) -> None:
        """Make the places that images would have, and the volumes with their owners."""
        for containers in self.containers.values():
            for container in containers:
                for source, target, _ in self._mounts(container):
                    if not source.exists():
                        source.mkdir(parents=True)
                        shutil.chown(source, _number(self._user(container)))
                    self._make_mount_point(Path(target), source.is_file())

    def _make_mount_point(self, path: Path, is_file: bool) -> None:
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir()
                self._mount_points.append(parent)
        if not path.exists():
            path.touch() if is_file else path.mkdir()
            self._mount_points.append(path)

    @staticmethod
    def _tail(container: Container) -> str:
        return "\n".join(container.log.read_text(errors="replace").splitlines()[-30:])


def _image(service: Mapping[str, Any]) -> str:
    return service["image"].partition(":")[0]


def _number(user: str) -> int | str:
    return int(user) if user.isdigit() else user


def _ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if check and done.returncode:
        raise EngineError(f"ip {shlex.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
