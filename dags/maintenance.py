"""Looks after the store every day."""

from airflow.sdk import dag, task

from mled import settings


@dag(
    schedule="30 3 * * *",
    catchup=False,
    max_active_runs=1,
    tags=["store"],
    doc_md="""
### Maintenance

Every night: marks trials whose process is gone, checks the store's file and references, takes a
backup while the store is in use, and deletes the backups that retention does not keep (24 hours,
7 days, 8 weeks). What it did is in the store's table `maintenance_run`.

If it fails with *the store is damaged*: `make down`, then `.venv/bin/mled store restore`.
""",
)
def maintenance():
    @task(retries=1)
    def maintain() -> dict:
        """Check, back up, clean up, and record it."""
        from mled import maintenance

        return maintenance.run(settings.load())

    maintain()


maintenance()
