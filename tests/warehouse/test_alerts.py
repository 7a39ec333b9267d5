"""People hear of a warehouse that falls behind."""

from __future__ import annotations

import http.server
import json
import logging
import threading

import pytest
import sqlalchemy as sa

from mled.store.schema import EtlRun
from mled.warehouse import alerts

HOUR = 3_600_000_000
NOW = 1_800_000_000_000_000


def ran(database, hours_ago, error=None):
    with database.write() as connection:
        connection.execute(
            sa.insert(EtlRun).values(
                run_id=f"{hours_ago} {error}",
                state="failed" if error else "succeeded",
                started_at=NOW - hours_ago * HOUR,
                ended_at=NOW - hours_ago * HOUR,
                error=error,
            )
        )


def test_no_success_for_two_hours(settings, database):
    assert alerts.problem(settings, NOW) is None
    ran(database, 3, "dbt: the disk is full")
    assert alerts.problem(settings, NOW) == (
        "the first ETL failed 3.0 hours ago: mend what stopped the last one (dbt: the disk is "
        "full), and run `mled etl`"
    )
    ran(database, 2.5)
    text = alerts.problem(settings, NOW)
    assert text.startswith("the last successful ETL ended 2.5 hours ago: see that the DAG is not")
    ran(database, 2)
    ran(database, 1, "extract: no store")
    assert alerts.problem(settings, NOW) is None
    assert "(extract: no store)" in alerts.problem(settings, NOW + HOUR)


def test_a_run_that_takes_too_long(settings, database):
    ran(database, 1)
    with database.write() as connection:
        connection.execute(sa.insert(EtlRun).values(run_id="slow", state="running", started_at=NOW))
    assert alerts.problem(settings, NOW + HOUR // 2) is None
    text = alerts.problem(settings, NOW + HOUR // 2 + 60_000_000)
    assert text.startswith("the ETL run slow has been at work for 31 minutes, of at most 30:")


@pytest.fixture
def webhook(monkeypatch):
    """The bodies of what was posted to MLED_ALERT_URL."""
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("MLED_ALERT_URL", f"http://127.0.0.1:{server.server_port}/hook")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield bodies
        server.shutdown()
        thread.join()


def test_an_alert_is_logged_and_posted(webhook, caplog):
    alerts.send("look here")
    assert "look here" in caplog.text
    assert [body["text"] in caplog.text for body in webhook] == [True]


def test_an_alert_that_cannot_be_posted_is_in_the_log(monkeypatch, caplog):
    monkeypatch.setenv("MLED_ALERT_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    alerts.send("look here")
    messages = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert messages[0] == "ALERT: look here"
    assert "could not be posted to http://127.0.0.1:9/" in messages[1]
