"""Which workers there are, and from which queues each takes tasks."""

from __future__ import annotations

import ast
import socket

from mled.settings import CELERY, LOCAL, Settings

# Airflow's own name for the queue of tasks that name none: here, of those that do not train.
DEFAULT = "default"
TRAINING, GPU = "training", "gpu"
ANSWER_SECONDS = 3.0


class NoWorker(RuntimeError):
    """No worker takes tasks from a queue; the message says how to start one."""


def own_name(settings: Settings) -> str:
    """The name of this machine's worker."""
    return settings.worker_name or socket.gethostname()


def queues_served(settings: Settings) -> dict[str, set[str]]:
    """Worker → its queues, for the workers that are alive.

    With the executor local there is none: the scheduler runs every task itself.
    """
    if settings.executor == LOCAL:
        return {}
    return _celery(settings) if settings.executor == CELERY else _edge(settings)


def _celery(settings: Settings) -> dict[str, set[str]]:
    from celery import Celery

    with Celery(broker=settings.broker) as app:
        answers = app.control.inspect(timeout=ANSWER_SECONDS).active_queues() or {}
    return {
        name.partition("@")[2]: {queue["name"] for queue in queues}
        for name, queues in answers.items()
    }


def _edge(settings: Settings) -> dict[str, set[str]]:
    """What the workers have told Airflow, which writes it into its database."""
    import sqlalchemy as sa

    alive = sa.text(
        "SELECT worker_name, queues FROM edge_worker WHERE state IN ('starting', 'running', 'idle')"
    )
    engine = sa.create_engine(settings.airflow_database, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        return {
            name: set(ast.literal_eval(queues or "[]"))
            for name, queues in connection.execute(alive)
        }


def check_queue(settings: Settings, queue: str, asker: str) -> None:
    """Make sure that tasks which `asker` sends to `queue` will be run.

    Raises:
        NoWorker: they would wait for ever.
    """
    if settings.executor == LOCAL:
        if queue == GPU and not _has_gpu():
            raise NoWorker(
                f"{asker} asks for the queue {queue!r}, and torch finds no GPU on this machine: "
                "install a build of torch for it (UV_TORCH_BACKEND=auto make up), or add a machine "
                "that has one (docs/deployment.md)"
            )
        return
    served = queues_served(settings)
    if not any(queue in queues for queues in served.values()):
        there_are = ", ".join(f"{name} ({', '.join(sorted(q))})" for name, q in served.items())
        raise NoWorker(
            f"{asker} asks for the queue {queue!r}, which no worker serves; there are "
            f"{there_are or 'no workers'}. Start one on a machine that can: "
            f"MLED_QUEUES={queue} mled run worker (docs/deployment.md)"
        )


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
