"""Runs an experiment over a grid of hyperparameters."""

import base64
import os
from datetime import timedelta

from airflow.sdk import Asset, BaseOperatorLink, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from mled import settings
from mled.assets import EXPERIMENTS
from mled.workers import TRAINING
from training import experiments, models, options, search, shards
from training.checkpoints import FileCheckpoints
from training.cores import one_core

EXAMPLE = {
    "experiment": "my-first-grid",
    "dataset": "digits",
    "model": "svm",
    "grid": {"C": [0.1, 1, 10], "gamma": [0.0005, 0.005]},
}


def _field(name: str, schema: dict) -> Param:
    """A field of the form, from the experiment's own schema."""
    default = schema.pop("default", None)
    if "anyOf" in schema:
        # The form knows a field that may stay empty by this shape only.
        schema |= {"type": [choice["type"] for choice in schema.pop("anyOf")]}
    if name == "grid":
        schema["description_md"] = schema.pop("description") + _hyperparameters()
    return Param(EXAMPLE.get(name, default), **schema | {"title": name})


def _hyperparameters() -> str:
    """What the grid of each model may name, with the defaults, as Markdown."""
    return "".join(
        f"\n- **{name}**: "
        + ", ".join(f"{field} ({value!r})" for field, value in models.check(name, {}).items())
        for name in models.names()
    )


NO_PRESET = "as filled in below"
EXPERIMENT = experiments.Experiment.model_json_schema()["properties"]
OPTIONS = options.Options.model_json_schema()["properties"]
PARAMS = {
    "preset": Param(
        NO_PRESET,
        enum=[NO_PRESET, *experiments.presets()],
        title="preset",
        description="Or pick an experiment kept in training/experiments: then the fields "
        "from 'experiment' to 'direction' are not used.",
    ),
    **{name: _field(name, dict(schema)) for name, schema in {**EXPERIMENT, **OPTIONS}.items()},
}


def _queues() -> dict[str, dict[str, str]]:
    """The models and presets whose trials go to a queue of their own.

    A task's queue cannot be chosen by an upstream task: airflow_local_settings.py reads this when
    Airflow makes the tasks of a run.
    """
    asked = {name: models.get(name).queue for name in models.names()}
    of_model = {name: queue for name, queue in asked.items() if queue != TRAINING}
    of_preset = {
        name: of_model[fields["model"]]
        for name, fields in ((name, experiments.preset(name)) for name in experiments.presets())
        if fields.get("model") in of_model
    }
    return {"model": of_model, "preset": of_preset} if of_model else {}


# What Airflow keeps of a value without a warning, once it is text.
STATE_BYTES = 48_000


class TaskStateCheckpoints(FileCheckpoints):
    """Unfinished trials in files and, where they are small, in the task's state as well.

    A retry finds the task's state on whatever host it runs.
    """

    def __init__(self, folder, store):
        super().__init__(folder)
        self._store = store

    def read(self, trial_id: int) -> bytes | None:
        text = self._store.get(f"trial-{trial_id}")
        return base64.b64decode(text) if text else super().read(trial_id)

    def write(self, trial_id: int, state: bytes) -> None:
        super().write(trial_id, state)
        if len(state) <= STATE_BYTES:
            self._store.set(f"trial-{trial_id}", base64.b64encode(state).decode())

    def delete(self, trial_id: int) -> None:
        super().delete(trial_id)
        self._store.delete(f"trial-{trial_id}")


class DashboardLink(BaseOperatorLink):
    """A button under a task's details that opens the dashboard of the run's experiment."""

    name = "Dashboard"

    def get_link(self, operator, *, ti_key) -> str:
        fields, _ = _request(ti_key.get_template_context())
        return search.dashboard_url(settings.load().superset_page, fields["experiment"])


def _request(context=None) -> tuple[dict, dict]:
    """What this run was triggered with: the experiment's fields, and the options."""
    params = dict((context or get_current_context())["params"])
    chosen = {name: params.pop(name) for name in OPTIONS}
    preset = params.pop("preset")
    return (params if preset == NO_PRESET else experiments.preset(preset)), chosen


def _since() -> int:
    """When this run began, microseconds UTC."""
    return int(get_current_context()["dag_run"].start_date.timestamp() * 1e6)


@dag(
    schedule=None,
    params=PARAMS,
    tags=["experiments"],
    doc_md="""
### Grid search

Runs a trial for each combination of the grid's values and each seed, on as many cores as there
are. **Trigger** it, fill in the form, and watch `run_trials`: each of its tasks runs a few trials
in a row and logs how far it is.

- A trial that fails is recorded with its error, and the others go on.
- Triggering the same experiment again runs only the trials that have not finished.
- Pausing this DAG lets the tasks that run come to their end; unpausing goes on with the others.
- `summarise` shows the best trials in its log, and leads to their dashboard: in the log, and by a
  button under **Details**. The dashboards follow when `experiment_etl` has run, which this DAG
  triggers when it ends.
""",
)
def grid_search():
    @task
    def plan() -> list[str]:
        """Check the form and register the experiment; nothing is registered when it is wrong."""
        fields, chosen = _request()
        try:
            # As ranges: every task of run_trials reads the whole list.
            return [shards.pack(shard) for shard in search.plan(fields, **chosen)]
        except ValueError as error:
            raise AirflowFailException(f"This grid cannot be run.\n{error}") from None

    @task(
        pool="training",
        queue=TRAINING,
        executor_config={"queues": _queues()},
        retries=4,
        retry_delay=timedelta(seconds=5),
        map_index_template="{{ label }}",
    )
    def run_trials(shard: str) -> dict[str, int]:
        """Run a few trials one after the other."""
        context = get_current_context()
        context["label"] = f"trials {shard if len(shard) < 40 else shard[:40] + '…'}"
        fields, chosen = _request()
        supervisor = os.getppid()
        since = _since()
        installed = settings.load()
        checkpoints = TaskStateCheckpoints(
            installed.home / "checkpoints", context["task_state_store"]
        )
        with one_core(installed.home / "run" / "cores", installed.workers):
            try:
                return search.run(
                    shards.unpack(shard),
                    fields,
                    since=since,
                    until=since / 1e6 + chosen["budget_s"] if chosen["budget_s"] else None,
                    checkpoints=checkpoints,
                    # When the supervisor died, Airflow retries the task: the trial that runs is
                    # brought to its end, the others are the retry's.
                    is_wanted=lambda: os.getppid() == supervisor,
                    **chosen,
                )
            except experiments.InvalidExperiment as error:
                # A retry would find the same.
                raise AirflowFailException(str(error)) from None

    @task(trigger_rule="all_done", outlets=[Asset(EXPERIMENTS)])
    def summarise(planned: list[str] | None, results: list[dict[str, int]] | None) -> dict:
        """Count the trials by state and list the best."""
        if planned is None:
            raise AirflowFailException("nothing was run: see the log of the task 'plan'")
        fields, chosen = _request()
        trial_ids = [id for shard in planned for id in shards.unpack(shard)]
        summary = search.summarise(fields["experiment"], trial_ids, _since())
        over_budget = sum(result["left"] for result in (results or [])[:])
        if summary["left"] > over_budget:
            raise AirflowFailException(
                f"{summary['left'] - over_budget} trials have not run to their end: see the tasks "
                "of 'run_trials' that failed, then trigger this again to run only those trials"
            )
        if summary["failed"] and chosen["on_failed_trials"] == "fail":
            raise AirflowFailException(f"{summary['failed']} trials failed; they are listed above")
        if not summary["trials"].get("finished"):
            raise AirflowFailException("no trial has finished; the errors are listed above")
        return summary

    planned = plan()
    summary = summarise(planned, run_trials.expand(shard=planned))
    for result in (planned, summary):
        result.operator.operator_extra_links = (DashboardLink(),)


grid_search()
