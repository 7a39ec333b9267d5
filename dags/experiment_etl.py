"""Brings what trials recorded into the mart, every hour and whenever a grid has ended."""

from datetime import timedelta
from pathlib import Path

from airflow.sdk import (
    Asset,
    AssetOrTimeSchedule,
    CronTriggerTimetable,
    dag,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowFailException
from cosmos import DbtTaskGroup, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, LoadMode, TestBehavior

from mled import settings as mled_settings
from mled.assets import EXPERIMENTS
from mled.warehouse import alerts, dbt

SETTINGS = mled_settings.load()
RETRY = {"retries": 2, "retry_delay": timedelta(seconds=30)}


def _run():
    """The record of this run; imported late, so that the DAG processor need not load pyarrow."""
    from mled.warehouse.pipeline import Run

    return Run(SETTINGS, get_current_context()["run_id"])


def _exclusive():
    from mled.warehouse.files import exclusive

    return exclusive(SETTINGS)


def _record_dbt(project_dir: str, context: dict) -> None:
    _run().built(Path(project_dir) / "target")


def _models() -> DbtTaskGroup:
    """One `dbt build`, in which each model is a task that shows how the model fared."""
    return DbtTaskGroup(
        group_id="dbt",
        project_config=ProjectConfig(
            dbt_project_path=SETTINGS.dbt_project,
            manifest_path=dbt.manifest(SETTINGS),
            install_dbt_deps=False,
        ),
        profile_config=ProfileConfig(
            profile_name="mled",
            target_name="warehouse",
            profiles_yml_filepath=SETTINGS.dbt_project / "profiles.yml",
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            # The tests run inside the one build; a task for each would double the cost of a run.
            test_behavior=TestBehavior.NONE,
            emit_datasets=False,
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            setup_operator_args={
                "pool": "dbt",
                "dbt_cmd_flags": ["--resource-type", "test"],
                "callback": _record_dbt,
            },
        ),
        operator_args={
            # Cosmos looks for what dbt has compiled in the copy of the project that it makes.
            "env": dbt.environment(SETTINGS) | {"DBT_TARGET_PATH": "target"},
            "deferrable": False,
            "poke_interval": 1,
            # What a failed build left undone, the next run does.
            "retries": 0,
        },
    )


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 * * * *", timezone="UTC"), assets=[Asset(EXPERIMENTS)]
    ),
    catchup=False,
    max_active_runs=1,
    tags=["warehouse"],
    doc_md="""
### Experiment ETL

Brings what trials recorded into the mart: every hour, and whenever a grid has ended.

1. `extract` takes the rows that changed in the store since the last batch into Parquet files.
2. `dbt` applies the batches to the marts, a task for each model: open one to see its SQL and log.
3. `publish` shows the new marts to the dashboards, in one step.
4. `record` notes what the run did in the store; it fails when a stage has failed.

A run that fails or is killed leaves nothing half done, and the next one does what is missing, so
there is nothing to repair by hand: read the error, mend its cause, and wait or trigger a run.
""",
)
def experiment_etl():
    @task(**RETRY)
    def extract() -> int:
        """Take what changed in the store into a batch; the number of rows."""
        run = _run()
        with _exclusive():
            run.begin()
            run.extract()
        return run.report().rows_changed

    @task(**RETRY)
    def publish() -> int:
        """Show the marts to their readers; the version."""
        run = _run()
        with _exclusive():
            run.publish()
        return run.report().mart_version

    @task(trigger_rule="all_done", **RETRY)
    def record() -> dict:
        """Note the outcome in the store."""
        report = _run().end()
        if report.error:
            raise AirflowFailException(report.error)
        return {"rows_changed": report.rows_changed, "mart_version": report.mart_version}

    extract() >> _models() >> publish() >> record()


experiment_etl()


@dag(
    schedule=CronTriggerTimetable("*/30 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["warehouse"],
    doc_md="""
### Warehouse watch

Fails, and sends an alert, when a run of the ETL is at work for over 30 minutes, or none has
succeeded for two hours: because each fails, or the DAG is paused. Where alerts go beside the log
is set by `MLED_ALERT_URL`.
""",
)
def warehouse_watch():
    @task
    def look() -> None:
        """Compare the times of the latest runs with the time of day."""
        text = alerts.problem(SETTINGS)
        if text:
            alerts.send(text)
            raise AirflowFailException(text)

    look()


warehouse_watch()
