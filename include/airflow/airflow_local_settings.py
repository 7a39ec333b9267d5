"""Imported by every Airflow process when it starts.

It says how Airflow connects to its database. In the scheduler, and only there, it also imports the
libraries that trials need: the scheduler's children run the tasks and inherit what it has
imported, which spares each task a second of CPU time. Our own modules are left out, so that a
change to them counts from the next task on.
"""

import os

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
