"""What people see and may do in Superset, on the real servers, after the whole path was walked."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import threading
import time
from urllib.parse import quote

import pytest

import mled
from mled import maintenance
from mled.secrets import secret
from mled.settings import ROOT
from mled.store import connect
from tests.e2e.conftest import ARTIFACTS, MLED, Platform
from tests.superset import browser
from tests.superset.client import CHART_DATA, Client

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        browser.find_chromium() is None,
        reason="NO BROWSER: what people see is not tested; apt-get install chromium",
    ),
]
# Each of these takes a while on its own; together they would double the short tests.
long = pytest.mark.long

PEOPLE = ("admin", "analyst", "researcher", "stakeholder")
DASHBOARDS = ("overview", "experiments", "compare", "trial", "datasets", "pipeline")
NARROW, WIDE = 1440, 1920
SUPERSET = ROOT / "include" / "superset"
NAME = "it's <compared> & 50%"
AUTHOR = "Ada"
TRACEBACK = "ValueError: <0 trees> & no leaves"
CLIENTS = 8
TRIES = 20


def etl(platform: Platform) -> None:
    """Run the pipeline by hand, when none of those that grids have triggered is at work."""
    environment = {**os.environ, **platform.settings.environ()}
    for _ in range(TRIES):
        platform.settle()
        done = subprocess.run([MLED, "etl"], env=environment, capture_output=True, text=True)
        said = done.stdout + done.stderr
        # Airflow may begin a run at any moment, before ours has the mart or after.
        if "another ETL is at work" not in said and "Conflicting lock" not in said:
            break
        time.sleep(1)
    assert done.returncode == 0, said


@pytest.fixture(scope="module")
def shown(platform, tmp_path_factory) -> Platform:
    """The platform with experiments, a failure and a backup: every chart has something to show."""
    database = connect(platform.settings)
    file = tmp_path_factory.mktemp("kept") / "model.txt"
    file.write_text("weights")
    for name, dataset, model in (("plain", "wine", "mlp"), (NAME, "digits", "forest")):
        study = mled.experiment(
            name, dataset=dataset, model=model, author=AUTHOR, objective="accuracy",
            database=database,
        )  # fmt: skip
        for depth, rate, seed in itertools.product((2, 4), (0.1, 0.5), (0, 1)):
            with study.trial({"depth": depth, "rate": rate}, seed=seed) as trial:
                for step in range(6):
                    score = (depth + rate + seed / 10) / 10 + step / 20
                    trial.log({"accuracy": score, "loss": 1 - score}, step=step)
            trial.tag("purpose", "to be seen")
            trial.note("Looks <plausible> & done.")
            trial.artifact(file)
        with pytest.raises(ValueError), study.trial({"depth": 0, "rate": 0.1}):
            raise ValueError(TRACEBACK.partition(": ")[2])
    maintenance.run(platform.settings)
    etl(platform)
    if platform.mart("SELECT count(*) FROM marts.etl_runs") == [(0,)]:
        # A run shows up with the next one.
        etl(platform)
    return platform


@pytest.fixture(scope="module")
def people(platform) -> dict[str | None, Client]:
    """A session for each role; that of None has not logged in."""
    sessions = {user: Client(platform.settings).login(user) for user in PEOPLE}
    return {None: Client(platform.settings), **sessions}


def superset_python(platform: Platform, script: str, *arguments: str, **variables: str) -> str:
    """Run one of Superset's scripts as the platform does; what it prints."""
    environment = {**os.environ, **platform.settings.environ(), **variables}
    done = subprocess.run(
        [ROOT / ".venv-superset" / "bin" / "python", SUPERSET / script, *arguments],
        env=environment, text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@long
@pytest.mark.parametrize("user", PEOPLE)
def test_every_dashboard_is_whole_for_every_role_at_two_widths(shown, user):
    base = shown.settings.superset_url
    with browser.new_page(width=NARROW) as page:
        browser.login(page, base, user, secret(shown.settings, f"superset_{user}_password"))
        for slug in DASHBOARDS:
            dashboard = browser.open_dashboard(page, base, slug)
            errors = {name: chart.error for name, chart in dashboard.charts.items() if chart.error}
            assert errors == {}, slug
            empty = {name for name, chart in dashboard.charts.items() if not chart.rows}
            assert empty == set(), slug
            assert dashboard.outside_requests == [], slug
            for width in (WIDE, NARROW):
                page.set_viewport_size({"width": width, "height": 900})
                assert _fits(page), f"{slug} is cut off at {width} pixels"
                if user == "stakeholder":
                    dashboard.wait_until_drawn()
                    dashboard.screenshot(ARTIFACTS / "dashboards" / f"{slug}-{width}.png")


def _fits(page) -> bool:
    """Whether nothing is wider than the window, a while after the window has changed at most."""
    for _ in range(25):
        if page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            return True
        page.wait_for_timeout(200)
    return False


def test_numbers_equal_the_store_and_links_and_filters_lead_on(shown):
    """Every dashboard, as a stakeholder who goes from Overview to one trial."""
    base = shown.settings.superset_url
    store = shown.store
    with browser.new_page(width=NARROW) as page:
        password = secret(shown.settings, "superset_stakeholder_password")
        browser.login(page, base, "stakeholder", password)

        def opened(slug: str, click: str | None = None) -> browser.Dashboard:
            dashboard = browser.open_dashboard(page, base, slug, click=click)
            troubles = {name: c.error for name, c in dashboard.charts.items() if not c.rows}
            assert troubles == {}, slug
            return dashboard

        overview = opened("overview").charts
        states = {(row["state"], row["trials"]) for row in overview["Trials by state"].rows}
        assert states == set(store("SELECT state, count(*) FROM trial GROUP BY state"))

        experiment = opened("experiments", click=NAME)
        quoted = NAME.replace("'", "''")
        trials = store(
            "SELECT trial.id, max(number) FROM trial JOIN metric ON trial_id = trial.id "
            "JOIN experiment ON experiment.id = experiment_id "
            f"WHERE experiment.name = '{quoted}' AND metric.name = 'accuracy' GROUP BY trial.id"
        )
        leaders = experiment.charts["Leaderboard"].rows
        assert {row["experiment"] for row in leaders} == {NAME}
        assert sorted(row["objective_value"] for row in leaders) == sorted(
            best for _, best in trials
        )

        first, count = store(
            "SELECT experiment.name, count(*) FROM experiment "
            "JOIN trial ON experiment_id = experiment.id WHERE experiment.id = 1 GROUP BY 1"
        )[0]
        experiment.set_filter("Experiment", first)
        assert experiment.charts["Key figures"].rows[0]["trials"] == count

        experiment.set_filter("Experiment", NAME)
        label = shown.mart(
            f"SELECT trial_label FROM marts.trials WHERE experiment = '{quoted}' "
            "ORDER BY experiment_rank LIMIT 1"
        )[0][0]
        trial = opened("trial", click=label)
        (summary,) = trial.charts["Trial"].rows
        assert f"#{summary['trial_id']} " == label[: label.index(" ") + 1]
        one = f"WHERE trial_id = {summary['trial_id']}"
        measured = store(f"SELECT name, count(*) FROM metric {one} GROUP BY name")
        assert {(r["metric"], r["steps"]) for r in trial.charts["Metrics"].rows} == set(measured)
        files = store(f"SELECT name, size, sha256, path FROM artifact {one}")
        assert [
            (r["name"], r["bytes"], r["sha256"], r["path"]) for r in trial.charts["Files"].rows
        ] == files
        assert [r["text"] for r in trial.charts["Notes"].rows] == ["Looks <plausible> & done."]
        assert trial.charts["What happened"].rows == [{"attempt": 1, "outcome": "No error."}]

        compare = opened("compare")
        finished = store(
            "SELECT dataset.name, model.name, count(*) FROM trial "
            "JOIN experiment ON experiment.id = experiment_id "
            "JOIN dataset ON dataset.id = dataset_id JOIN model ON model.id = model_id "
            "WHERE experiment.objective = 'accuracy' AND state = 'finished' GROUP BY 1, 2"
        )
        rows = compare.charts["Scores by dataset and model"].rows
        assert {(r["dataset"], r["model"], r["finished_trials"]) for r in rows} == set(finished)

        datasets = opened("datasets").charts
        used = store(
            "SELECT dataset.name, dataset.version, count(DISTINCT experiment.id) FROM dataset "
            "JOIN experiment ON dataset.id = dataset_id "
            "WHERE experiment.id IN (SELECT experiment_id FROM trial) GROUP BY 1, 2"
        )
        rows = datasets["Dataset versions"].rows
        assert {(r["dataset"], r["dataset_version"], r["experiments"]) for r in rows} == set(used)

        pipeline = opened("pipeline").charts
        ended = store("SELECT count(*) FROM etl_run WHERE state <> 'running'")[0][0]
        # The run that published the mart had not ended when it read the store.
        assert len(pipeline["Runs, the latest first"].rows) == ended - 1
        backups = store("SELECT count(*) FROM maintenance_run WHERE backup_path IS NOT NULL")[0][0]
        assert pipeline["Backup"].rows[0]["backups"] == backups


def test_a_failed_trial_shows_its_traceback_as_text(shown):
    """Through the link in the table of failures; what is in a message is no HTML."""
    base = shown.settings.superset_url
    with browser.new_page(width=NARROW) as page:
        password = secret(shown.settings, "superset_stakeholder_password")
        browser.login(page, base, "stakeholder", password)
        overview = browser.open_dashboard(page, base, "overview")
        failures = overview.charts["Latest failures"].rows
        assert "<0 trees> & no leaves" in {row["error_message"] for row in failures}
        label = shown.mart(
            "SELECT trial_label FROM marts.trials WHERE state = 'failed' ORDER BY ended_at DESC"
        )[0][0]
        browser.open_dashboard(page, base, "trial", click=label)
        shown_text = page.locator("[data-test-chart-name='What happened'] pre").inner_text()
        assert shown_text.startswith("Traceback (most recent call last)")
        assert TRACEBACK in shown_text
        nothing = page.locator("[data-test-chart-name='Files'] [aria-label=empty] + div > p").first
        said = nothing.evaluate("p => getComputedStyle(p, '::after').content")
        assert "This trial kept no files" in said


@long
def test_a_publish_under_load_breaks_nothing_and_shows_up(shown, people):
    base = shown.settings.superset_url
    with browser.new_page(width=NARROW) as page:
        browser.login(page, base, "admin", secret(shown.settings, "superset_admin_password"))
        dashboard = browser.open_dashboard(page, base, "overview")
        requests = [chart.request for chart in dashboard.charts.values()]
        answers: list[int] = []
        stop = threading.Event()

        def hammer(client: Client) -> None:
            while not stop.is_set():
                for request in requests:
                    answers.append(client.chart_data(request).status_code)

        sessions = [people[PEOPLE[number % len(PEOPLE)]] for number in range(CLIENTS)]
        threads = [threading.Thread(target=hammer, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        try:
            path = shown.settings.store.removeprefix("sqlite:///")
            with sqlite3.connect(path, timeout=60) as connection:
                connection.execute("UPDATE author SET name = 'Ada L.' WHERE name = 'Ada'")
            before = shown.settings.mart.resolve()
            etl(shown)
            assert shown.settings.mart.resolve() != before
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(answers) == {200}
        assert len(answers) > 2 * CLIENTS
        dashboard.reload()
        authors = {r["author"] for r in dashboard.charts["Experiments and their best trials"].rows}
        assert "Ada L." in authors
        assert "Ada" not in authors


ALLOWED = {  # request → what admin, analyst, researcher, stakeholder and nobody get
    ("GET", "/api/v1/dashboard/overview"): (200, 200, 200, 200, 401),
    ("GET", "/superset/dashboard/overview/"): (200, 200, 200, 200, 302),
    ("GET", "/api/v1/database/"): (200, 200, 200, 403, 401),
    ("GET", "/api/v1/dataset/"): (200, 200, 200, 403, 401),
    ("GET", "/api/v1/query/"): (200, 200, 403, 403, 401),
    ("GET", "/api/v1/dashboard/export/?q=!(1)"): (200, 200, 200, 403, 401),
    ("GET", "/api/v1/security/users/"): (200, 403, 403, 403, 401),
    ("GET", "/api/v1/security/roles/"): (200, 403, 403, 403, 401),
    ("GET", "/api/v1/rowlevelsecurity/"): (200, 403, 403, 403, 401),
    ("GET", "/api/v1/log/"): (200, 403, 403, 403, 401),
    # 201 is a new object, 400 and 422 complain of the empty body, behind the permission.
    ("POST", "/api/v1/dashboard/"): (201, 201, 201, 403, 400),
    ("POST", "/api/v1/chart/"): (400, 400, 400, 403, 400),
    ("POST", "/api/v1/dataset/"): (400, 400, 403, 403, 400),
    ("POST", "/api/v1/database/"): (422, 403, 403, 403, 400),
    ("POST", "/api/v1/theme/"): (400, 403, 403, 403, 400),
    ("POST", "/api/v1/assets/import/"): (400, 403, 403, 403, 400),
}


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_each_role_may_do_this_and_no_more(people, method, path):
    body = None if method == "GET" else {}
    who = (*PEOPLE, None)
    answers = tuple(people[user].request(method, path, json=body).status_code for user in who)
    assert answers == ALLOWED[method, path]


def test_only_admin_and_analyst_have_sql(shown, people):
    answers = [people[user].sql("SELECT 42").status_code for user in (*PEOPLE, None)]
    assert answers == [200, 200, 403, 403, 400]


@pytest.mark.parametrize("user", ["analyst", "researcher", "stakeholder"])
def test_nobody_else_may_change_what_is_code(people, user):
    shared = people["admin"].dashboards()["overview"]
    answer = people[user].put(f"/api/v1/dashboard/{shared['id']}", json={"css": "x"})
    assert answer.status_code == 403


# Datasets that a rule on authors reaches: the table itself, and SQL that reads it.
BY_AUTHOR = ("trials", "experiments", "seeds", "trial_metrics", "learning_curves")
# Tables without an author, which need a rule of their own.
BY_TRIAL = ("trial_artifacts", "trial_attempts", "trial_notes")


def test_row_level_security_holds_in_charts_and_not_in_sql_lab(shown, people):
    """Also for a dataset with SQL of its own. What the documentation says has to be so."""
    admin = people["admin"]
    found = admin.get("/api/v1/dataset/?q=(page_size:100)").json()["result"]
    datasets = {dataset["table_name"]: dataset["id"] for dataset in found}
    found = admin.get("/api/v1/rowlevelsecurity/related/roles?q=(page_size:100)").json()["result"]
    limited = [role["value"] for role in found if role["text"] in ("Stakeholder", "Analyst")]
    rules = []
    try:
        for tables, clause in (
            (["trials"], "author = 'nobody'"),
            (BY_TRIAL, "trial_id IN (SELECT trial_id FROM marts.trials WHERE author = 'nobody')"),
        ):
            rule = admin.post(
                "/api/v1/rowlevelsecurity/",
                json={
                    "name": clause, "filter_type": "Regular", "roles": limited, "clause": clause,
                    "tables": [datasets[table] for table in tables], "group_key": "",
                    "description": "",
                },
            )  # fmt: skip
            assert rule.status_code == 201, rule.text
            rules.append(rule.json()["id"])
        for dataset in (*BY_AUTHOR, *BY_TRIAL):
            for user, rows in (("stakeholder", False), ("analyst", False), ("researcher", True)):
                query = {"columns": ["experiment"], "metrics": [], "row_limit": 10}
                source = {"id": datasets[dataset], "type": "table"}
                answer = people[user].chart_data(
                    json.dumps({"datasource": source, "queries": [query]})
                )
                assert answer.status_code == 200, (dataset, user, answer.text)
                assert bool(answer.json()["result"][0]["data"]) == rows, (dataset, user)
        assert people["analyst"].sql("SELECT author FROM mart.marts.trials").json()["data"]
    finally:
        for rule in rules:
            admin.delete(f"/api/v1/rowlevelsecurity/?q=!({rule})")


@long
def test_a_bootstrap_mends_roles_and_users_and_shows_dashboards_to_anyone_if_asked(platform):
    metadata = platform.settings.superset_home / "metadata.db"
    with sqlite3.connect(metadata, timeout=30) as connection:
        connection.execute("UPDATE ab_user SET active = 0 WHERE username = 'researcher'")
        connection.execute(
            "DELETE FROM ab_permission_view_role WHERE role_id ="
            " (SELECT id FROM ab_role WHERE name = 'Stakeholder')"
        )
    nobody = Client(platform.settings)
    page = "/api/v1/dashboard/overview"
    try:
        superset_python(platform, "bootstrap.py", MLED_ANONYMOUS_DASHBOARDS="1")
        assert Client(platform.settings).login("researcher").get(page).status_code == 200
        assert Client(platform.settings).login("stakeholder").get(page).status_code == 200
        assert nobody.get(page).status_code == 200
        assert nobody.get("/api/v1/database/").status_code == 401
        assert nobody.sql("SELECT 42").status_code != 200
    finally:
        superset_python(platform, "bootstrap.py")
    assert nobody.get(page).status_code == 401


FORBIDDEN = (
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_blob('{file}')",
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM read_csv_auto('{file}')",
    "SELECT * FROM read_json('{file}')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM parquet_metadata('{file}')",
    "SELECT * FROM sniff_csv('{file}')",
    "SELECT * FROM '{file}'",
    "FROM '{file}'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT (SELECT content FROM read_text('{file}'))",
    "WITH x AS (FROM read_text('{file}')) SELECT * FROM x",
    "SELECT * FROM query('FROM read_text(''{file}'')')",
    "SELECT * FROM query_table('{file}')",
    "COPY (SELECT 1) TO '{target}'",
    "COPY marts.trials FROM '{file}'",
    "EXPORT DATABASE '{target}'",
    "IMPORT DATABASE '{target}'",
    "ATTACH '{target}' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH mart",
    "USE memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "FORCE INSTALL httpfs",
    "SELECT * FROM 'https://127.0.0.1/x.parquet'",
    "SET enable_external_access = true",
    "SET GLOBAL memory_limit = '100GB'",
    "RESET lock_configuration",
    "PRAGMA threads = 64",
    "CREATE SECRET stolen (TYPE s3)",
    "CREATE TABLE marts.mine AS SELECT 1",
    "CREATE OR REPLACE VIEW marts.trials AS SELECT 1",
    "INSERT INTO marts.trials (trial_id) VALUES (1)",
    "UPDATE marts.trials SET seed = 1",
    "DELETE FROM marts.trials",
    "DROP TABLE marts.trials",
    "ALTER TABLE marts.trials ADD COLUMN mine INTEGER",
    "SELECT 1; DROP TABLE marts.trials",
    "CALL force_checkpoint()",
)


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_sql_lab_refuses(shown, people, statement, tmp_path):
    file = tmp_path / "secret.csv"
    file.write_text("a,b\n1,hidden-from-you\n")
    answer = people["analyst"].sql(statement.format(file=file, target=tmp_path / "stolen"))
    assert answer.status_code != 200, answer.text
    assert "hidden-from-you" not in answer.text
    assert os.listdir(tmp_path) == ["secret.csv"]


def test_after_all_that_the_server_is_up_and_the_mart_as_it_was(shown, people):
    assert people[None].get("/health").text == "OK"
    answer = people["analyst"].sql("SELECT count(*) AS trials FROM marts.trials").json()
    assert answer["data"] == [{"trials": shown.mart("SELECT count(*) FROM marts.trials")[0][0]}]


def test_a_query_cannot_run_for_ever(shown, people):
    began = time.monotonic()
    answer = people["analyst"].sql(
        "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range * b.range = 7"
    )
    assert answer.status_code != 200
    assert "stopped after 10 seconds" in answer.text
    assert time.monotonic() - began >= shown.settings.query_timeout_s
    assert people["analyst"].sql("SELECT 1").status_code == 200


def test_the_page_is_closed_to_others(people):
    session = people["analyst"]
    policy = session.get("/superset/dashboard/overview/").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";") if rule.strip())
    assert rules["default-src"] == "'self'"
    assert rules["connect-src"] == "'self'"
    assert rules["object-src"] == "'none'"
    assert "'nonce-" in rules["script-src"]
    assert "unsafe" not in rules["script-src"]
    assert not [rule for rule in rules.values() if "http" in rule or "*" in rule]


def test_cookies_and_forgery(platform):
    session = Client(platform.settings)
    cookies: list[str] = []
    session.event_hooks["response"] = [
        lambda answer: cookies.extend(answer.headers.get_list("set-cookie"))
    ]
    session.login("analyst")
    ours = [line for line in cookies if line.startswith("mled_superset=")]
    assert ours
    assert cookies == ours
    for line in ours:
        assert "HttpOnly" in line
        assert "SameSite=Lax" in line
    del session.headers["X-CSRFToken"]
    answer = session.sql("SELECT 1")
    assert answer.status_code == 400
    assert "CSRF" in answer.text


def test_no_secret_is_in_a_log(shown):
    secrets = {path.name: path.read_text().strip() for path in shown.settings.secrets.iterdir()}
    logs = [path for path in shown.settings.logs.rglob("*") if path.is_file()]
    assert secrets
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        assert not [name for name, value in secrets.items() if value in text], path


def test_the_audit_shows_who_asked_what(shown, people):
    people["analyst"].sql("SELECT 'on the record'")
    stakeholder = people["stakeholder"]
    stakeholder.get("/superset/dashboard/overview/")
    charts = stakeholder.get("/api/v1/dashboard/experiments/charts").json()["result"]
    (chart,) = (chart for chart in charts if chart["slice_name"] == "Leaderboard")
    dataset = int(chart["form_data"]["datasource"].partition("__")[0])
    # The page says in the address for which chart it asks.
    address = CHART_DATA + "?form_data=" + quote(json.dumps({"slice_id": chart["id"]}))
    answer = stakeholder.post(
        address,
        json={
            "datasource": {"id": dataset, "type": "table"},
            "queries": [{"columns": [], "metrics": ["trials"]}],
        },
    )
    assert answer.status_code == 200, answer.text
    lines = superset_python(shown, "audit.py", "--user", "analyst").splitlines()
    assert [line for line in lines if "analyst" in line and "SELECT 'on the record'" in line]
    assert not [line for line in lines if " admin " in line]
    lines = superset_python(shown, "audit.py").splitlines()
    for subject in ("Overview", "Leaderboard"):
        assert [line for line in lines if "stakeholder" in line and subject in line], subject
