"""Superset's configuration; `SUPERSET_CONFIG_PATH` points here.

What differs from one installation to the next comes from `mled.settings`.
"""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from pathlib import Path

from sqlalchemy.engine.url import URL
from sqlalchemy.pool import QueuePool
from superset.config import THEME_DARK, THEME_DEFAULT

HERE = Path(__file__).resolve().parent
# At the end: this folder is called superset, like the package in the environment.
sys.path += [str(HERE), str(HERE.parent)]

import metadata_db  # noqa: E402
from event_log import EventLogger  # noqa: E402
from mart_cache import mart_version  # noqa: E402
from mart_connection import check_uri, engine_arguments  # noqa: E402
from mart_dialect import know_default_schema  # noqa: E402
from mart_errors import explain_interrupts  # noqa: E402

from mled import settings as mled_settings  # noqa: E402
from mled.secrets import secret  # noqa: E402

settings = mled_settings.load()

# --- Superset's own state -----------------------------------------------------------------------

DATA_DIR = str(settings.superset_home)
SQLALCHEMY_DATABASE_URI = settings.superset_database
SQLALCHEMY_ENGINE_OPTIONS = (
    {"pool_pre_ping": True}
    if settings.superset_database_url
    else {
        # Seconds to wait for another worker's write.
        "connect_args": {"timeout": 30, "check_same_thread": False},
        # By default each request would open the file and close it, and the last to close it waits
        # until all that was written has reached the disk.
        "poolclass": QueuePool,
        # The server's threads bound the number of connections.
        "max_overflow": -1,
        "pool_events": [(metadata_db.commit_without_waiting, "connect")],
    }
)
EVENT_LOGGER = EventLogger()
SQLALCHEMY_EXAMPLES_URI = None
SECRET_KEY = secret(settings, "superset_secret_key")
GUEST_TOKEN_JWT_SECRET = secret(settings, "superset_guest_key")

# --- The published mart -------------------------------------------------------------------------


def DB_CONNECTION_MUTATOR(uri, _arguments, _username, _security_manager, _source):
    """Connect to the published version of the mart, whatever the metadata database says."""
    path = mart_version(settings)
    return URL.create("duckdb", database=path), engine_arguments(settings, path)


DB_SQLA_URI_VALIDATOR = check_uri

ROW_LIMIT = 10_000
SQL_MAX_ROW = 100_000
DEFAULT_SQLLAB_LIMIT = 1_000
SQLLAB_TIMEOUT = int(settings.query_timeout_s)
# The browser waits a little longer than the server, so that it can show the server's message.
SUPERSET_WEBSERVER_TIMEOUT = int(settings.query_timeout_s) + 15

# --- Caches: no Redis and no Celery on one machine ----------------------------------------------

CACHE_CONFIG = {"CACHE_TYPE": "NullCache"}
DATA_CACHE_CONFIG = {
    "CACHE_TYPE": "mart_cache.MartCache",
    "CACHE_DIR": str(settings.superset_home / "cache"),
    "CACHE_THRESHOLD": 2_000,
    "CACHE_DEFAULT_TIMEOUT": int(timedelta(days=1).total_seconds()),
    "CACHE_OPTIONS": {"settings": settings},
}
# A dashboard left open shows a new version at its next refresh; until then the cache answers.
DASHBOARD_AUTO_REFRESH_MODE = "fetch"
CELERY_CONFIG = None

# --- Safety -------------------------------------------------------------------------------------

WTF_CSRF_ENABLED = True
# Browsers share cookies between the ports of one host, and Airflow is on another port.
SESSION_COOKIE_NAME = "mled_superset"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
# The server itself speaks no TLS: it listens on loopback, or a proxy stands before it.
SESSION_COOKIE_SECURE = settings.superset_page.startswith("https:")
ENABLE_PROXY_FIX = bool(settings.superset_public_url)
PERMANENT_SESSION_LIFETIME = timedelta(days=7)

TALISMAN_ENABLED = True
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        # Superset's page asks for a tracking pixel of another host: this line stops it.
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": ["'none'"],
        "style-src": ["'self'", "'unsafe-inline'"],
        "font-src": ["'self'"],
        "script-src": ["'self'", "'strict-dynamic'"],
        "frame-ancestors": ["'self'"],
        "form-action": ["'self'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    "force_https": False,
    "session_cookie_secure": SESSION_COOKIE_SECURE,
}
THEME_FONT_URL_ALLOWED_DOMAINS: list[str] = []
ENABLE_CORS = False

# Log-in attempts by address and worker; a limit on all pages would hit dashboards first.
RATELIMIT_ENABLED = True
RATELIMIT_STORAGE_URI = "memory://"
RATELIMIT_APPLICATION = None
AUTH_RATE_LIMIT = "20 per minute"

# --- Looks --------------------------------------------------------------------------------------

APP_NAME = "MLED"
ENABLE_UI_THEME_ADMINISTRATION = False
BUG_REPORT_URL = None
# A chart that grows for a second shows nothing sooner, and keeps the next ones waiting.
_CHARTS_AT_ONCE = {"echartsOptionsOverrides": {"animation": False}}
THEME_DEFAULT = {**THEME_DEFAULT, "token": {**THEME_DEFAULT["token"], **_CHARTS_AT_ONCE}}
THEME_DARK = {**THEME_DARK, "token": {**THEME_DARK["token"], **_CHARTS_AT_ONCE}}

# --- Logs ---------------------------------------------------------------------------------------

LOG_LEVEL = logging.WARNING
# At each page: that a file of Superset's own source tree is not in its package, and that its
# libraries will change one day.
for _name in ("superset.views.base", "py.warnings"):
    logging.getLogger(_name).setLevel(logging.ERROR)
ALEMBIC_SKIP_LOG_CONFIG = True

# --- What settings cannot say -------------------------------------------------------------------


def FLASK_APP_MUTATOR(app):
    """Mend three things in the application that Superset has built."""
    from superset import security_manager

    explain_interrupts(settings.query_timeout_s)
    know_default_schema()
    # Superset sets its own limit on a view that only shows the log-in form.
    limit_attempts = security_manager.limiter.limit(AUTH_RATE_LIMIT, methods=["POST"])
    for view in ("AuthDBView", "SecurityApi"):
        limit_attempts(app.blueprints[view])
