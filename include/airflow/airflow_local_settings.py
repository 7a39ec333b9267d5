"""Imported by every Airflow process when it starts.

It says how Airflow connects to its database, and which queue a task goes to. In the process whose
children run the tasks (the scheduler, or a worker), and only there, it also imports the libraries
that trials need: the children inherit what it has imported, which spares each task a second of CPU
time. Our own modules are left out, so that a change to them counts from the next task on.
"""

import os

if os.environ.get("MLED_EXECUTOR", "local") != "local":
    # Only where there are queues: Airflow makes tasks one by one as soon as there is such a hook.

    def task_instance_mutation_hook(task_instance, dag_run):
        """Send a grid's trials to the queue that its model or preset asks for."""
        queues = (task_instance.executor_config or {}).get("queues")
        if not queues or dag_run is None:
            return
        for field in ("preset", "model"):
            queue = queues[field].get((dag_run.conf or {}).get(field))
            if queue:
                task_instance.queue = queue
                return


# Seconds that a process waits for another one's lock on Airflow's own SQLite database. The default
# of 5 is too short for the scheduler on a busy machine. The API server keeps it: its requests wait
# for each other inside one process, and a longer wait there leaves every caller without an answer.
DATABASE_CONNECT_ARGS = {"timeout": 5 if os.environ.get("MLED_API_SERVER") else 60}

if os.environ.get("MLED_PRELOAD"):
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401
    import sklearn.datasets
    import sklearn.metrics
    import sklearn.model_selection
    import sklearn.preprocessing
    import sklearn.svm  # noqa: F401
    import torch

    # Threads do not survive a fork: none may be started here.
    torch.set_num_threads(1)
