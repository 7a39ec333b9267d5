"""What runs: each program's command and environment, and the process manager's configuration.

Nothing is started here; see `mled.processes`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shlex
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from mled import install, workers
from mled.secrets import secret
from mled.settings import CELERY, EDGE, LOCAL, ROOT, Settings
from mled.warehouse import dbt

BIN = ROOT / ".venv" / "bin"
SUPERSET_BIN = ROOT / ".venv-superset" / "bin"
AIRFLOW_USER = "admin"
AIRFLOW_PASSWORD = "airflow_admin_password"
SUPERSET_USER = "admin"
SUPERSET_PASSWORD = "superset_admin_password"
API_SERVER, WORKER = "api-server", "worker"
TRAINING_POOL = "training"
DBT_POOL = "dbt"

# All that the programs see of the caller's environment. Anything else could change what they do:
# PYTHONDONTWRITEBYTECODE alone makes every task compile Airflow again.
INHERITED = (
    *("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("SSL_CERT_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"),
)
# The object store's address and credentials: whatever boto3 reads.
INHERITED_PREFIX = "AWS_"
# What a person may set of Airflow itself; the rest follows from MLED's own settings.
OVERRIDABLE = (
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__LOGGING__LOGGING_LEVEL",
    # For hundreds of workers: see docs/scaling.md.
    "AIRFLOW__API__WORKERS",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL",
)
# A trial is one process on one core; more threads would only fight for the cores.
ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")
}
# With fewer processes the tasks of a run wait for each other's start-up.
LEAST_PARALLELISM = 8
# Longer than any task: then Redis hands a task whose worker is gone to another one. Airflow itself
# notices much earlier, and runs the task again.
VISIBILITY_SECONDS = 7 * 24 * 3600
LOG_BYTES, LOG_BACKUPS = 10_000_000, 3
# Longest path of a unix socket; supervisor appends a dot and its process id while it binds.
SOCKET_PATH_BYTES = 107 - len(".4194304")


class ServiceError(RuntimeError):
    """A setting that is missing, or that the process manager cannot express."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One background program; `environment` comes on top of the process manager's own."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    url: str = ""
    stop_seconds: int = 15
    # Whether the signal to stop goes to the program's children as well.
    stop_children: bool = False


def training_slots(settings: Settings) -> int:
    """Slots of the pool in which trials train.

    Twice as many as train at a time: tasks start and end while others train (see
    `training/cores.py`).
    """
    return 2 * settings.all_workers


def inherited_environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict:
    """What the programs get from the caller's environment (by default this process's)."""
    environ = os.environ if environ is None else environ
    result = {
        name: value
        for name, value in environ.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIX)
    }
    # Tasks and health checks talk to our own servers, which a proxy cannot reach.
    unproxied = [result.get("no_proxy") or result.get("NO_PROXY"), settings.host, "localhost"]
    if settings.airflow_server:
        unproxied.append(urllib.parse.urlsplit(settings.airflow_url).hostname)
    result["no_proxy"] = result["NO_PROXY"] = ",".join(filter(None, unproxied))
    return result


def airflow_environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict:
    """The whole environment of a command of Airflow; missing secrets are generated."""
    return inherited_environment(settings, environ) | airflow_options(settings, environ)


def dbt_environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict:
    """The whole environment of a command of dbt."""
    return inherited_environment(settings, environ) | settings.environ() | dbt.environment(settings)


def superset_environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict:
    """The whole environment of a command of Superset."""
    return inherited_environment(settings, environ) | superset_options(settings)


def airflow_options(settings: Settings, environ: Mapping[str, str] | None = None) -> dict:
    """Airflow's configuration as environment variables."""
    environ = os.environ if environ is None else environ
    api = settings.airflow_url
    # Above those that train there must be room for the tasks that do not.
    parallelism = str(max(LEAST_PARALLELISM, training_slots(settings) + 4))
    options = {
        "CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "CORE__PLUGINS_FOLDER": str(ROOT / "include" / "airflow" / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__PARALLELISM": parallelism,
        "CORE__MAX_ACTIVE_TASKS_PER_DAG": parallelism,
        # Forked tasks inherit what the scheduler has imported; forkserver and spawn do not.
        "CORE__MP_START_METHOD": "fork",
        "CORE__FERNET_KEY": secret(settings, "airflow_fernet_key", 32) + "=",
        "CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{AIRFLOW_USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow_passwords(settings)),
        "API__HOST": settings.host,
        "API__PORT": str(settings.airflow_port),
        "API__BASE_URL": settings.airflow_page,
        "API__WORKERS": "1",
        "API__SECRET_KEY": secret(settings, "airflow_api_secret_key"),
        "API_AUTH__JWT_SECRET": secret(settings, "airflow_jwt_secret", 64),
        # When a task's sockets close before its process can be reaped, its supervisor sleeps
        # this long (5 s by default) and holds its slot meanwhile.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
        # How soon the tasks of a machine that died are run again, and those that a killed scheduler
        # had queued.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "60",
        # A new or changed file shows up within this many seconds.
        "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "LOGGING__BASE_LOG_FOLDER": str(settings.logs / "airflow"),
        "LOGGING__DAG_PROCESSOR_LOG_TARGET": "stdout",
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        **_database_options(settings),
        **_executor_options(settings),
    }
    return {
        **settings.environ(),
        **dbt.environment(settings),
        **ONE_THREAD,
        "AIRFLOW_HOME": str(settings.airflow_home),
        **{f"AIRFLOW__{name}": value for name, value in options.items()},
        "COSMOS__ENABLE_TELEMETRY": "False",
        # Elsewhere two homes on one machine would share it.
        "AIRFLOW__COSMOS__CACHE_DIR": str(settings.home / "dbt" / "cosmos"),
        "PYTHONUNBUFFERED": "1",
        # airflow_local_settings.py lies there.
        "PYTHONPATH": str(ROOT / "include" / "airflow"),
        **{name: environ[name] for name in OVERRIDABLE if environ.get(name)},
    }


def _concurrency(settings: Settings) -> int:
    """How many tasks the worker of this machine runs at a time."""
    if settings.queues == workers.DEFAULT:
        return LEAST_PARALLELISM
    # Tasks start and end while others train, each on a core of its own (training/cores.py). With
    # more, they would wait here for a core while other machines have one.
    return 2 * settings.workers


def _database_options(settings: Settings) -> dict:
    url = settings.airflow_database
    if not url.startswith("sqlite"):
        # Airflow would choose another driver for the second, which is not installed.
        return {"DATABASE__SQL_ALCHEMY_CONN": url, "DATABASE__SQL_ALCHEMY_CONN_ASYNC": url}
    arguments = "airflow_local_settings.DATABASE_CONNECT_ARGS"
    return {
        "DATABASE__SQL_ALCHEMY_CONN": url,
        "DATABASE__SQL_ALCHEMY_CONNECT_ARGS": arguments,
        "DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": arguments,
    }


def _executor_options(settings: Settings) -> dict:
    """What follows from where tasks run.

    Raises:
        ServiceError: Celery's broker is not set.
    """
    concurrency = str(_concurrency(settings))
    if settings.executor == CELERY:
        if not settings.broker:
            raise ServiceError(
                "MLED_BROKER_URL is not set, and MLED_EXECUTOR=celery needs it: name a Redis, as "
                "in redis://host:6379/0, or choose the executor edge, which needs none"
            )
        return {
            "CORE__EXECUTOR": "CeleryExecutor",
            "CELERY__BROKER_URL": settings.broker,
            "CELERY__RESULT_BACKEND": settings.broker,
            "CELERY__CELERY_CONFIG_OPTIONS": "celery_settings.CONFIG",
            "CELERY__WORKER_CONCURRENCY": concurrency,
            "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(VISIBILITY_SECONDS),
        }
    if settings.executor == EDGE:
        return {
            "CORE__EXECUTOR": "airflow.providers.edge3.executors.EdgeExecutor",
            "DATABASE__EXTERNAL_DB_MANAGERS": "airflow.providers.edge3.models.db.EdgeDBManager",
            "EDGE__API_ENABLED": "True",
            # A request is valid for so long, by clocks that differ by as much at most: a worker
            # ends when one is refused, as happens on a busy machine within the default of 10.
            "API_AUTH__JWT_LEEWAY": "60",
            "EDGE__API_URL": f"{settings.airflow_url}/edge_worker/v1/rpcapi",
            "EDGE__WORKER_CONCURRENCY": concurrency,
            "EDGE__JOB_POLL_INTERVAL": "1",
            "EDGE__HEARTBEAT_INTERVAL": "10",
        }
    return {
        "CORE__EXECUTOR": "LocalExecutor",
        # The API server reads the logs from the disk: Airflow's log servers, which would listen
        # on every interface, are not started, and their absence is no error.
        "LOGGING__NAMESPACE_LEVELS": "airflow.utils.log.file_task_handler=CRITICAL",
    }


def superset_options(settings: Settings) -> dict:
    """Superset's configuration as environment variables."""
    return {
        **settings.environ(),
        "SUPERSET_CONFIG_PATH": str(ROOT / "include" / "superset" / "superset_config.py"),
        "SUPERSET_HOME": str(settings.superset_home),
        "PYTHONUNBUFFERED": "1",
    }


def airflow_passwords(settings: Settings) -> Path:
    """The file in which Airflow's own login looks passwords up: JSON, user name → password."""
    return settings.airflow_home / "passwords.json"


def programs(settings: Settings) -> list[Program]:
    """The background programs, in the order in which they start."""
    airflow = airflow_options(settings)
    # Only the process whose children train pays for importing torch.
    training = {**airflow, "MLED_PRELOAD": "1"}
    scheduler = training if settings.executor == LOCAL else airflow
    api_server = {**airflow, "MLED_API_SERVER": "1"}
    serve = [str(BIN / "airflow"), "api-server"]
    if settings.airflow_page.startswith("https:"):
        # The proxy says that the browser's connection is encrypted; nobody else gets through.
        serve.append("--proxy-headers")
        api_server["FORWARDED_ALLOW_IPS"] = "*"
    worker = [] if settings.executor == LOCAL else [_worker(settings, training)]
    return [
        Program(API_SERVER, tuple(serve), api_server, settings.airflow_url),
        Program(
            "scheduler",
            (str(BIN / "airflow"), "scheduler", "--skip-serve-logs"),
            scheduler,
            # It waits for its tasks. Those that run a command pass the signal on to it; a task of
            # Python does not end on a signal: it is killed after this time, and the scheduler
            # runs it again after the next start.
            stop_seconds=10,
            stop_children=True,
        ),
        Program("dag-processor", (str(BIN / "airflow"), "dag-processor"), airflow),
        Program("triggerer", (str(BIN / "airflow"), "triggerer", "--skip-serve-logs"), airflow),
        *worker,
        Program(
            "superset",
            (
                str(SUPERSET_BIN / "gunicorn"),
                "-c",
                str(ROOT / "include" / "superset" / "gunicorn.conf.py"),
                "superset.app:create_app()",
            ),
            superset_options(settings),
            settings.superset_url,
        ),
    ]


def _worker(settings: Settings, environment: Mapping[str, str]) -> Program:
    """The process that runs tasks on this machine, where the scheduler does not."""
    command = (
        *(str(BIN / "airflow"), settings.executor, "worker"),
        *(f"--{settings.executor}-hostname", workers.own_name(settings)),
        *("--queues", settings.queues),
    )
    return Program(WORKER, command, environment, stop_seconds=10, stop_children=True)


def program(settings: Settings, name: str) -> Program:
    """The program of this name.

    Raises:
        ServiceError: there is none.
    """
    found = {program.name: program for program in programs(settings)}
    if name not in found:
        hint = "; a worker needs MLED_EXECUTOR=celery or edge" if name == WORKER else ""
        raise ServiceError(f"there is no program {name!r}: there are {', '.join(found)}{hint}")
    return found[name]


def pools(settings: Settings) -> list[tuple[str, int, str]]:
    """Airflow's pools: name, slots and description."""
    return [
        (TRAINING_POOL, training_slots(settings), "tasks that run trials"),
        (DBT_POOL, 1, "DuckDB allows one writing process"),
    ]


def names(settings: Settings) -> tuple[str, ...]:
    """The names of the background programs, in the order in which they start."""
    return tuple(program.name for program in programs(settings))


def socket_path(settings: Settings) -> Path:
    """The process manager's socket; in the temporary folder where the home's path is too long."""
    path = settings.run / "supervisor.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(settings.home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"mled-{os.getuid()}-{digest}.sock"


def log_file(settings: Settings, name: str) -> Path:
    return settings.logs / f"{name}.log"


def supervisor_config(settings: Settings) -> str:
    """The text of supervisord.conf for these settings. It holds secrets: keep it private.

    Raises:
        ServiceError: a path has characters that supervisor cannot read back.
    """
    environments = " ".join(install.fingerprint(lock) for lock in install.LOCKS.values())
    sections = [
        # Programs that started before an upgrade have to be started again.
        f"; {environments}\n",
        _section("unix_http_server", file=socket_path(settings), chmod="0700"),
        _section(
            "supervisord",
            nodaemon="true",
            silent="true",
            logfile=log_file(settings, "supervisord"),
            logfile_maxbytes=LOG_BYTES,
            logfile_backups=LOG_BACKUPS,
            pidfile=settings.run / "supervisord.pid",
            directory=ROOT,
            nocleanup="true",
        ),
        _section(
            "rpcinterface:supervisor",
            **{
                "supervisor.rpcinterface_factory": (
                    "supervisor.rpcinterface:make_main_rpcinterface"
                )
            },
        ),
    ]
    sections += [_program_section(settings, program) for program in programs(settings)]
    return "\n".join(sections)


def _program_section(settings: Settings, program: Program) -> str:
    return _section(
        f"program:{program.name}",
        command=shlex.join(program.command),
        environment=",".join(f"{k}={_quote(v)}" for k, v in sorted(program.environment.items())),
        autostart="false",
        autorestart="true",
        startsecs=3,
        startretries=2,
        stopasgroup=str(program.stop_children).lower(),
        killasgroup="true",
        stopwaitsecs=program.stop_seconds,
        redirect_stderr="true",
        stdout_logfile=log_file(settings, program.name),
        stdout_logfile_maxbytes=LOG_BYTES,
        stdout_logfile_backups=LOG_BACKUPS,
    )


def _section(name: str, **options) -> str:
    lines = [f"[{name}]"]
    for key, value in options.items():
        # Supervisor expands log files twice, so that no percent sign can be written in them;
        # the environment, which may hold a database's URL, is expanded once.
        misread = r"\n|\s[;#]" if key == "environment" else r"\n|\s[;#]|%"
        if re.search(misread, str(value)):
            raise ServiceError(
                f"supervisor would misread {key}={str(value)!r}: choose paths without '%', ' #' "
                "and ' ;' (MLED_HOME, and the folder of the repository)"
            )
        lines.append(f"{key} = {value}")
    return "\n".join([*lines, ""])


def _quote(value: str) -> str:
    if '"' in value:
        raise ServiceError(
            f"supervisor cannot pass on a double quote: {value!r}; choose paths without it "
            "(MLED_HOME, and the folder of the repository)"
        )
    return '"' + value.replace("%", "%%") + '"'
