"""Looks after the store and the records of Superset every day."""

from airflow.sdk import dag, task

from mled import settings
from mled.settings import ROOT


@dag(
    schedule="30 3 * * *",
    catchup=False,
    max_active_runs=1,
    tags=["store"],
    doc_md="""
### Maintenance

Every night: marks trials whose process is gone, checks the store's file and references, takes a
backup while the store is in use, and deletes the backups that retention does not keep (24 hours,
7 days, 8 weeks). What it did is in the store's table `maintenance_run`. Then deletes what Superset
recorded of who asked what, as far as it is older than 90 days.

If it fails with *the store is damaged*: `make down`, then `.venv/bin/mled store restore`.
""",
)
def maintenance():
    @task(retries=1)
    def maintain() -> dict:
        """Check, back up, clean up, and record it."""
        from mled import maintenance

        return maintenance.run(settings.load())

    @task(retries=1)
    def prune_audit() -> None:
        """Delete Superset's old records of who asked what."""
        import subprocess

        from airflow.sdk.exceptions import AirflowSkipException

        from mled.services import SUPERSET_BIN

        python = SUPERSET_BIN / "python"
        if not python.exists():
            raise AirflowSkipException(
                f"{python} does not exist: Superset runs elsewhere, where each start does this"
            )
        script = ROOT / "include" / "superset" / "audit.py"
        subprocess.run([python, script, "--prune"], check=True)

    # Neither waits for the other: a damaged store is no reason to keep records of people longer.
    maintain()
    prune_audit()


maintenance()
