"""Who asked what: Superset's own records of pages, charts and SQL, and how long they are kept.

    .venv-superset/bin/python include/superset/audit.py [--days 7] [--user analyst]

Superset writes a row to the table `logs` for each page, chart and change, and to `query` for each
statement of SQL Lab, with its text. An administrator sees them under Security → Action Log and in
SQL Lab's history as well.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from mled.settings import load  # noqa: E402

RETENTION_DAYS = 90

# `log` holds the browser's timings of a page, which say nothing of who asked what.
_EVENTS = """
    SELECT strftime('%Y-%m-%d %H:%M:%S', logs.dttm) AS moment,
        coalesce(username, 'anonymous') AS user, action,
        coalesce(slice_name, dashboard_title, '') AS subject
    FROM logs
    LEFT JOIN ab_user ON ab_user.id = logs.user_id
    LEFT JOIN slices ON slices.id = slice_id
    LEFT JOIN dashboards ON dashboards.id = dashboard_id
    WHERE logs.action <> 'log' AND logs.dttm >= :since AND coalesce(username, '') LIKE :user
    UNION ALL
    SELECT strftime('%Y-%m-%d %H:%M:%S', start_time / 1000, 'unixepoch'), username,
        'SQL, ' || status, sql
    FROM query
    JOIN ab_user ON ab_user.id = query.user_id
    WHERE start_time / 1000 >= CAST(strftime('%s', :since) AS INTEGER) AND username LIKE :user
    ORDER BY moment
"""


def events(database: Path, days: float, user: str = "%") -> list[tuple[str, str, str, str]]:
    """Time (UTC), user, action and subject (a chart, a dashboard or SQL) of the last `days`."""
    with _open(database) as connection:
        return connection.execute(_EVENTS, {"since": _ago(days), "user": user}).fetchall()


def prune(database: Path, days: float = RETENTION_DAYS) -> None:
    """Delete what is older than `days` days."""
    if not database.exists():
        return
    since = _ago(days)
    with _open(database) as connection:
        connection.execute("DELETE FROM logs WHERE dttm < ?", (since,))
        connection.execute(
            "DELETE FROM query WHERE start_time / 1000 < CAST(strftime('%s', ?) AS INTEGER)",
            (since,),
        )


def _ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S")


@contextlib.contextmanager
def _open(database: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        yield connection


def main() -> None:
    """Print the records as lines of text."""
    parser = argparse.ArgumentParser(description="Show who asked what of Superset.")
    parser.add_argument("--days", type=float, default=1, help="how far to look back (1)")
    parser.add_argument("--user", default="%", help="only this user; %% stands for any text")
    arguments = parser.parse_args()
    database = load().superset_home / "metadata.db"
    if not database.exists():
        sys.exit(f"{database} does not exist: start Superset first, with `make up`")
    for moment, user, action, subject in events(database, arguments.days, arguments.user):
        print(f"{moment}  {user:12}  {action}  {' '.join(subject.split())}")


if __name__ == "__main__":
    main()
