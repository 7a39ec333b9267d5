"""How gunicorn serves Superset: `gunicorn -c gunicorn.conf.py "superset.app:create_app()"`."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.extend([str(HERE), str(HERE.parent)])

import audit  # noqa: E402
import mart_dialect  # noqa: E402

from mled.settings import load  # noqa: E402

settings = load()

# Each start mends roles, users and dashboards; with nothing to mend it takes a tenth of a second.
subprocess.run([sys.executable, HERE / "bootstrap.py"], check=True)

bind = f"{settings.host}:{settings.superset_port}"
proc_name = "mled-superset"
workers = 2
worker_class = "gthread"
# More than there is work for: a connection whose request was answered before all of it had been
# sent (a form that is refused) holds its thread until the client sends or closes.
threads = 16
preload_app = True
# A worker that gives no sign of life for so long is replaced; a long query is no such silence.
timeout = 120
# A stop waits for the queries that run.
graceful_timeout = 10
keepalive = 5
# Workers' heartbeat files: a disk that is busy would make them look dead.
worker_tmp_dir = "/dev/shm"
accesslog = None
errorlog = "-"
loglevel = "warning"


def on_starting(_server) -> None:
    """Remove what the queries of a killed server left on disk, and old audit records."""
    shutil.rmtree(settings.superset_home / "spill", ignore_errors=True)
    audit.prune(settings.superset_database)


def pre_fork(server, _worker) -> None:
    """Close the connections that preloading has opened: SQLite's must not cross a fork."""
    from superset import db

    with server.app.wsgi().app_context():
        db.engine.dispose()


def post_fork(_server, _worker) -> None:
    """Load DuckDB, whose threads must not cross a fork either."""
    mart_dialect.know_reserved_words()
