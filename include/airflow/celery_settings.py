"""How Celery's workers take tasks; Airflow reads it where Celery is the executor."""

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

CONFIG = {
    **DEFAULT_CELERY_CONFIG,
    # A worker takes a task only when it can begin it. What it had taken in advance would be out of
    # the others' reach while it is busy, and for a day if it is killed.
    "worker_disable_prefetch": True,
}
