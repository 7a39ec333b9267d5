"""Who asked what: Superset's own records of pages, charts and SQL, and how long they are kept.

    .venv-superset/bin/python include/superset/audit.py [--days 7] [--user analyst] [--prune]

Superset writes a row to the table `logs` for each page, chart and change, and to `query` for each
statement of SQL Lab, with its text. An administrator sees them under Security → Action Log and in
SQL Lab's history as well.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from mled.settings import load  # noqa: E402

RETENTION_DAYS = 90

# `log` holds the browser's timings of a page, which say nothing of who asked what.
_PAGES = sa.text("""
    SELECT logs.dttm, coalesce(username, 'anonymous'), action,
        coalesce(slice_name, dashboard_title, '')
    FROM logs
    LEFT JOIN ab_user ON ab_user.id = logs.user_id
    LEFT JOIN slices ON slices.id = slice_id
    LEFT JOIN dashboards ON dashboards.id = dashboard_id
    WHERE logs.action <> 'log' AND logs.dttm >= :since AND coalesce(username, '') LIKE :user
""")
_STATEMENTS = sa.text("""
    SELECT start_time, username, 'SQL, ' || status, sql
    FROM query
    JOIN ab_user ON ab_user.id = query.user_id
    WHERE start_time >= :since_ms AND username LIKE :user
""")
_SECONDS = "%Y-%m-%d %H:%M:%S"


def events(url: str, days: float, user: str = "%") -> list[tuple[str, str, str, str]]:
    """Time (UTC), user, action and subject (a chart, a dashboard or SQL) of the last `days`."""
    with _open(url) as connection:
        pages = connection.execute(_PAGES, {**_since(days), "user": user}).fetchall()
        statements = connection.execute(_STATEMENTS, {**_since(days), "user": user}).fetchall()
    return sorted(
        [(str(moment)[:19], *rest) for moment, *rest in pages]
        + [
            (datetime.fromtimestamp(float(moment) / 1000, UTC).strftime(_SECONDS), *rest)
            for moment, *rest in statements
        ]
    )


def prune(url: str, days: float = RETENTION_DAYS) -> None:
    """Delete what is older than `days` days; nothing where there is no such database yet."""
    with _open(url) as connection:
        if sa.inspect(connection).has_table("logs"):
            since = _since(days)
            connection.execute(sa.text("DELETE FROM logs WHERE dttm < :since"), since)
            connection.execute(sa.text("DELETE FROM query WHERE start_time < :since_ms"), since)


def _since(days: float) -> dict[str, str | float]:
    """The moment `days` days ago, as the table of pages and as that of statements writes it."""
    moment = datetime.now(UTC) - timedelta(days=days)
    return {"since": moment.strftime(_SECONDS), "since_ms": moment.timestamp() * 1000}


@contextlib.contextmanager
def _open(url: str) -> Iterator[sa.engine.Connection]:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        yield connection


def main() -> None:
    """Print the records as lines of text, or delete the old ones."""
    parser = argparse.ArgumentParser(description="Show who asked what of Superset.")
    parser.add_argument("--days", type=float, default=1, help="how far to look back (1)")
    parser.add_argument("--user", default="%", help="only this user; %% stands for any text")
    parser.add_argument(
        "--prune",
        action="store_true",
        help=f"print nothing, and delete what is older than {RETENTION_DAYS} days",
    )
    arguments = parser.parse_args()
    settings = load()
    database = settings.superset_home / "metadata.db"
    missing = not settings.superset_database_url and not database.exists()
    if arguments.prune:
        if not missing:
            prune(settings.superset_database)
        return
    if missing:
        sys.exit(f"{database} does not exist: start Superset first, with `make up`")
    found = events(settings.superset_database, arguments.days, arguments.user)
    for moment, user, action, subject in found:
        print(f"{moment}  {user:12}  {action}  {' '.join(subject.split())}")


if __name__ == "__main__":
    main()
