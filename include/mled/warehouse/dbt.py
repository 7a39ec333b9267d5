"""Running dbt on the project of this repository."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mled.settings import Settings
from mled.warehouse.files import WarehouseError, locked

BUILD = ("build", "--exclude-resource-type", "unit_test")
"""What the pipeline asks of dbt: the models and the tests of their data."""


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables that the project's profile, sources and exposures read."""
    return {
        "MLED_BUILD_FILE": str(settings.build_file),
        "MLED_MACROS": _macros(settings.dbt_project),
        "MLED_STAGING": str(settings.staging),
        "MLED_DUCKDB_MEMORY": settings.duckdb_memory,
        "MLED_DBT_THREADS": str(settings.dbt_threads),
        "MLED_SUPERSET_URL": settings.superset_page,
        "DBT_PROJECT_DIR": str(settings.dbt_project),
        "DBT_PROFILES_DIR": str(settings.dbt_project),
        "DBT_TARGET_PATH": str(settings.dbt_target),
        "DBT_LOG_PATH": str(settings.logs / "dbt"),
        # Below this level dbt writes every statement, which takes a tenth of an empty run.
        "DBT_LOG_LEVEL_FILE": "info",
        "DO_NOT_TRACK": "1",
    }


def _macros(project: Path) -> str:
    """A hash of the project's macros, of whose text dbt tells a model nothing."""
    texts = (path.read_bytes() for path in sorted(project.glob("macros/**/*.sql")))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def check_free(settings: Settings) -> None:
    """Make sure that no other process builds the marts: Airflow's dbt holds no lock but its file.

    Raises:
        WarehouseError: one does.
    """
    import duckdb

    if not settings.build_file.exists():
        return
    try:
        duckdb.connect(str(settings.build_file), read_only=True).close()
    except duckdb.IOException as error:
        if "lock" not in str(error):
            raise
        raise WarehouseError(
            "another ETL is at work (experiment_etl in Airflow, or a shell, has "
            f"{settings.build_file} open): wait until it has ended and try again"
        ) from error


def build(settings: Settings, *arguments: str) -> None:
    """Run `dbt build` in this process, without the unit tests. Call it under `files.exclusive`.

    `arguments` are further arguments of dbt. The log is in `settings.logs / "dbt"`.

    Raises:
        WarehouseError: a model or a test failed; the message names the first one.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    settings.build_file.parent.mkdir(parents=True, exist_ok=True)
    with _exported(environment(settings)):
        done = dbtRunner().invoke([*BUILD, "--quiet", *arguments])
    DuckDBConnectionManager.close_all_connections()  # it would keep the build file open
    if done.exception:
        raise WarehouseError(_one_line(done.exception)) from done.exception
    if not done.success:
        raise WarehouseError(outcome(settings.dbt_target)[1])


def outcome(target: Path) -> tuple[float, str | None]:
    """Seconds that the dbt run that wrote into `target` took, and what failed first in it.

    The second is a sentence with what to do, or None.
    """
    content = json.loads((target / "run_results.json").read_text(encoding="utf-8"))
    failed = [r for r in content["results"] if r["status"] in ("error", "fail")]
    if not failed:
        return content["elapsed_time"], None
    kind, _, name = failed[0]["unique_id"].split(".", 2)
    name, message = name.removeprefix("mled."), _one_line(failed[0]["message"])
    others = f", and {len(failed) - 1} more failed" if len(failed) > 1 else ""
    if failed[0]["status"] == "fail":
        sentence = (
            f"the marts did not pass the test {name}{others} ({message}), and were not published: "
            f"its query, below {target / 'compiled'}, shows the rows"
        )
    elif kind == "operation":
        sentence = message
    else:
        sentence = (
            f"the {kind} {name} failed{others}: {message}; mend it, or undo the last change of "
            "dbt_project, and run the ETL again"
        )
    return content["elapsed_time"], sentence


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def parse(settings: Settings) -> None:
    """Write the project's manifest, from which Airflow draws its models.

    Raises:
        WarehouseError: the project has an error; the message shows what dbt says of it.
    """
    command = [Path(sys.executable).with_name("dbt"), "parse", "--quiet", "--no-use-colors"]
    outcome = subprocess.run(
        command, env={**os.environ, **environment(settings)}, capture_output=True, text=True
    )
    if outcome.returncode:
        raise WarehouseError(f"dbt parse failed: {(outcome.stdout + outcome.stderr).strip()}")


def manifest(settings: Settings) -> Path:
    """The path of the project's manifest, written anew when a file of the project is newer.

    Raises:
        WarehouseError: the project has an error.
    """
    path = settings.dbt_target / "manifest.json"
    if not _is_fresh(path, settings.dbt_project):
        with locked(settings.dbt_target / "parse.lock"):
            if not _is_fresh(path, settings.dbt_project):
                parse(settings)
    return path


def _is_fresh(path: Path, project: Path) -> bool:
    # A folder's own time tells of files that were removed from it.
    changed = max(p.stat().st_mtime for p in [project, *project.rglob("*")])
    return path.exists() and path.stat().st_mtime >= changed


@contextlib.contextmanager
def _exported(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
