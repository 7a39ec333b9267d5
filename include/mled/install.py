"""Stage 0 of `make up`: the two virtual environments, from the locked requirements.

Run by the system's Python before anything is installed, so only the standard library is used:

    python3.11 include/mled/install.py [--tests | --lock]

An environment is built again from nothing whenever its stamp does not match: another lock file,
another Python, a moved repository, or an installation that was interrupted half-way.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON_WANTED = (3, 11)
UV = "uv==0.13.8"
MAIN, SUPERSET = ROOT / ".venv", ROOT / ".venv-superset"
LOCKS = {
    MAIN: ROOT / "requirements.txt",
    SUPERSET: ROOT / "include" / "superset" / "requirements.txt",
}
TESTS_LOCK = ROOT / "tests" / "requirements.txt"
# What one environment takes on disk, measured and rounded up (megabytes).
SIZE_MB = {MAIN: 3_000, SUPERSET: 1_500}
STAMP = ".mled-installed"
TESTS_STAMP = ".mled-tests-installed"
# Debian's packages that some tests need, and a program by which each is known to be there.
TEST_PACKAGES = {
    "chromium": "chromium",
    "postgresql": "pg_lsclusters",
    "redis-server": "redis-server",
}
# What uv draws in front of the lines of an error.
TREE = "├╰─▶\N{MULTIPLICATION SIGN} "


class InstallError(RuntimeError):
    """Something a person has to mend; the message says how."""


def check_python() -> None:
    """Raises InstallError unless this interpreter can build the environments."""
    if sys.version_info[:2] != PYTHON_WANTED:
        raise InstallError(
            "Python {}.{} is needed, and {} is {}: install python3.11 or name one with "
            "`make up PYTHON=/path/to/python3.11`".format(
                *PYTHON_WANTED, sys.executable, platform.python_version()
            )
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise InstallError(
            f"{sys.executable} cannot make virtual environments: install its venv module "
            "(Debian and Ubuntu: apt-get install python3.11-venv)"
        ) from None


def check_disk(folder: Path, needed_mb: int) -> None:
    """Raises InstallError when fewer than `needed_mb` megabytes are free under `folder`."""
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < needed_mb:
        raise InstallError(
            f"{free_mb} MB are free on the disk of {folder}, and the installation needs "
            f"{needed_mb} MB: free some space"
        )


def fingerprint(lock: Path) -> str:
    """What an installed environment must match: the lock, the tools and where it lies."""
    parts = [lock.read_text(encoding="utf-8"), sys.version, UV, str(ROOT)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_installed(environment: Path, lock: Path, stamp: str = STAMP) -> bool:
    """True when `environment` was completely installed from this very `lock`."""
    try:
        return (environment / stamp).read_text(encoding="utf-8").strip() == fingerprint(lock)
    except FileNotFoundError:
        return False


def mark_installed(environment: Path, lock: Path, stamp: str = STAMP) -> None:
    (environment / stamp).write_text(fingerprint(lock) + "\n", encoding="utf-8")


def pip_settings(listing: str) -> dict[str, str]:
    """The options that apply to `pip install`, from the output of `pip config list`."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, separator, value = line.partition("=")
        section, _, name = key.partition(".")
        if separator and section in found:
            found[section][name] = str(ast.literal_eval(value))
    return {**found["global"], **found["install"], **found[":env:"]}


def uv_environment(pip: dict[str, str], environ: dict[str, str]) -> dict[str, str]:
    """The environment for uv: `environ`, with pip's settings translated into uv's.

    uv does not read pip's configuration, and a machine behind a mirror has only that one.
    What the person set for uv itself stays as it is.
    """
    result = {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    own_index = any(
        name in environ
        for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
    )
    if not own_index:
        if "index-url" in pip:
            result["UV_DEFAULT_INDEX"] = pip["index-url"]
        if "extra-index-url" in pip:
            result["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
            # As pip does: any index may have the pinned version, not only the first that
            # knows the package.
            result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if "find-links" in pip:
        result.setdefault("UV_FIND_LINKS", ",".join(pip["find-links"].split()))
    if "cert" in pip:
        result.setdefault("SSL_CERT_FILE", pip["cert"])
    if "trusted-host" in pip:
        result.setdefault("UV_INSECURE_HOST", " ".join(pip["trusted-host"].split()))
    if "no-index" in pip:
        result.setdefault("UV_NO_INDEX", pip["no-index"])
    if "proxy" in pip:
        result.setdefault("ALL_PROXY", pip["proxy"])
    return result


def explain(output: str) -> str:
    """One line that says why pip or uv failed and what to do, from what it printed."""
    causes = [
        (
            r"No space left on device|os error 28",
            "the disk is full: free some space",
        ),
        (
            r"[Nn]etwork (?:connectivity is|was) disabled|error sending request|dns error"
            r"|tcp connect error|Connection refused|timed out|NewConnectionError"
            r"|NameResolutionError|ProxyError|ConnectTimeoutError",
            "the package index cannot be reached: check the network, or name a mirror with "
            "PIP_INDEX_URL",
        ),
        (
            r"was not found in the (?:package registry|cache|provided package locations)"
            r"|there is no version of|No matching distribution found",
            "the package index does not have a pinned package: check PIP_INDEX_URL, or change the "
            "pin and run make lock",
        ),
    ]
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for pattern, advice in causes:
        for line in lines:
            if re.search(pattern, line):
                return f"{advice} ({_shorten(line)})"
    return _shorten(lines[-1]) if lines else "it printed nothing"


def _shorten(line: str) -> str:
    line = line.lstrip(TREE)
    return line if len(line) <= 200 else line[:200] + "…"


def run(command: list[str], log: Path, environ: dict[str, str]) -> None:
    """Run `command` with its output appended to `log`; InstallError says why it failed."""
    done = subprocess.run(
        command, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode:
        name = " ".join([Path(command[0]).name, *command[1:3]])
        raise InstallError(f"{name} failed: {explain(done.stdout)}; all of it: {log}")


def find_links_have_torch(environ: dict[str, str]) -> bool:
    """True when a folder among uv's find-links holds a build of torch."""
    places = re.split(r"[,\s]+", environ.get("UV_FIND_LINKS", "").strip(", "))
    folders = [Path(place.removeprefix("file://")) for place in places if place]
    return any(any(folder.glob("torch-*.whl")) for folder in folders)


class Installer:
    """Builds environments with one pinned uv, which lives in the main environment."""

    def __init__(self, log: Path):
        self.log = log
        self.environ = dict(os.environ)
        self.uv = MAIN / "bin" / "uv"

    def create(self, environment: Path, *options: str) -> None:
        """An empty environment; whatever lies there is deleted."""
        command = [sys.executable, "-m", "venv", "--clear", *options, str(environment)]
        run(command, self.log, self.environ)

    def get_uv(self) -> None:
        """Take uv and pip's settings from the main environment, installing uv there if need be."""
        python = str(MAIN / "bin" / "python")
        if not self.uv.exists():
            command = [python, "-m", "pip", "install", "-q", "--retries", "1", "--no-input", UV]
            run(command, self.log, self.environ)
        listing = subprocess.run(
            [python, "-m", "pip", "config", "list"], text=True, capture_output=True, check=True
        )
        self.environ = uv_environment(pip_settings(listing.stdout), self.environ)

    def install(self, environment: Path, *arguments: str) -> None:
        command = [str(self.uv), "pip", "install", "--python", str(environment / "bin" / "python")]
        run([*command, "--compile-bytecode", *arguments], self.log, self.environ)

    def install_lock(self, environment: Path, lock: Path) -> None:
        if (
            environment is not MAIN
            or "UV_TORCH_BACKEND" in self.environ
            or find_links_have_torch(self.environ)
        ):
            self.install(environment, "-r", str(lock))
            return
        try:
            self.install(environment, "-r", str(lock), "--torch-backend", "cpu")
        except InstallError as error:
            # Where only a mirror of the package index can be reached, it has another build.
            say(f"  the small build of torch is not to be had, trying the large one ({error})")
            self.install(environment, "-r", str(lock))


def install(log: Path, with_tests: bool = False) -> None:
    """Bring both environments to what the lock files say; nothing is done where they match.

    Raises:
        InstallError: with the cause and what to do.
    """
    missing = [e for e, lock in LOCKS.items() if not is_installed(e, lock)]
    tests_missing = with_tests and (
        MAIN in missing or not is_installed(MAIN, TESTS_LOCK, TESTS_STAMP)
    )
    if not missing and not tests_missing:
        return
    check_disk(ROOT, sum(SIZE_MB[e] for e in missing))
    installer = Installer(log)
    if MAIN in missing:
        with progress("Python environment of Airflow, dbt and the training: .venv"):
            installer.create(MAIN)
            installer.get_uv()
            installer.install_lock(MAIN, LOCKS[MAIN])
            # Built with the locked setuptools, so that nothing unpinned is fetched.
            installer.install(MAIN, "--no-deps", "--no-build-isolation", "-e", ".")
            mark_installed(MAIN, LOCKS[MAIN])
    else:
        installer.get_uv()
    if SUPERSET in missing:
        with progress("Python environment of Superset: .venv-superset"):
            installer.create(SUPERSET, "--without-pip")
            installer.install_lock(SUPERSET, LOCKS[SUPERSET])
            mark_installed(SUPERSET, LOCKS[SUPERSET])
    if tests_missing:
        with progress("What the tests need on top: tests/requirements.txt"):
            installer.install(MAIN, "-r", str(TESTS_LOCK))
            mark_installed(MAIN, TESTS_LOCK, TESTS_STAMP)


def install_test_packages(log: Path) -> None:
    """Install Debian's packages for the tests, where that is possible and permitted."""
    missing = [name for name, program in TEST_PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    apt = ["apt-get"] if os.geteuid() == 0 else ["sudo", "-n", "apt-get"]
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        with progress(f"What the tests need of Debian: apt-get install {' '.join(missing)}"):
            run([*apt, "update"], log, environ)
            run([*apt, "install", "-y", "--no-install-recommends", *missing], log, environ)
    except (InstallError, FileNotFoundError) as error:
        say(f"  NOT INSTALLED, SO THE TESTS THAT NEED {missing} ARE SKIPPED: {error}")


def lock(log: Path) -> None:
    """Write the three lock files anew from their `.in` files; existing pins stay where they can.

    Raises:
        InstallError: no set of versions fits, or the package index cannot be reached.
    """
    installer = Installer(log)
    installer.get_uv()
    for path in (*LOCKS.values(), TESTS_LOCK):
        source, target = path.with_suffix(".in").relative_to(ROOT), path.relative_to(ROOT)
        with progress(f"{source} -> {target}"):
            command = [str(installer.uv), "pip", "compile", "-q", "--python-version", "3.11"]
            command += ["--no-header", "--no-annotate", str(source), "-o", str(target)]
            run(command, log, installer.environ)
            path.write_text(portable(path.read_text(encoding="utf-8")), encoding="utf-8")


def portable(lock_text: str) -> str:
    """The lock without what depends on the build of torch that this machine happens to find.

    The CPU build's local version must not become everybody's pin, and the libraries of the CUDA
    build, which pins them itself, must not be installed beside the CPU build.
    """
    text = re.sub(r"(?m)^(torch==\S+?)\+cpu$", r"\1", lock_text)
    return re.sub(r"(?m)^(?:cuda-|nvidia-|triton==).*\n", "", text)


def say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def progress(what: str):
    say(f"  {what} …")
    started = time.monotonic()
    yield
    say(f"  {what}: {time.monotonic() - started:.1f} s")


@contextlib.contextmanager
def one_at_a_time():
    """Hold the repository's folder locked, so that two installations never mix."""
    handle = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("  another installation is running; waiting for it …")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main() -> int:
    parser = argparse.ArgumentParser(description="Install MLED's two Python environments.")
    parser.add_argument("--tests", action="store_true", help="also what the tests need")
    parser.add_argument("--lock", action="store_true", help="write the lock files anew")
    arguments = parser.parse_args()
    try:
        check_python()
        # Python put this file's own folder here, whose modules would hide the standard library's.
        sys.path[0] = str(ROOT / "include")
        from mled import settings

        try:
            log = settings.load().logs / "install.log"
        except settings.SettingsError as error:
            raise InstallError(str(error)) from None
        log.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time():
            install(log, with_tests=arguments.tests)
            if arguments.tests:
                install_test_packages(log)
            if arguments.lock:
                lock(log)
    except InstallError as error:
        print(f"make: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"make: {explain(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make: interrupted; the next run starts the installation again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
