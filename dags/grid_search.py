"""Runs an experiment over a grid of hyperparameters."""

from airflow.sdk import Asset, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from mled.assets import EXPERIMENTS
from training import experiments, models, search

SCHEMA = experiments.Experiment.model_json_schema()["properties"]
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
    """What the grid of each model may name, as Markdown."""
    return "".join(
        f"\n- **{name}**: {', '.join(models.get(name).hyperparameters.model_fields)}"
        for name in models.names()
    )


NO_PRESET = "as filled in below"
OPTIONS = ("preset", "trials_per_task", "on_failed_trials")
PARAMS = {
    "preset": Param(
        NO_PRESET,
        enum=[NO_PRESET, *experiments.presets()],
        title="preset",
        description="Or pick an experiment kept in training/experiments: then the fields "
        "from 'experiment' to 'direction' are not used.",
    ),
    **{name: _field(name, dict(schema)) for name, schema in SCHEMA.items()},
    "trials_per_task": Param(
        0,
        type="integer",
        minimum=0,
        title="trials_per_task",
        description="Trials that one task runs in a row; 0 chooses by the number of workers.",
    ),
    "on_failed_trials": Param(
        "succeed",
        enum=["succeed", "fail"],
        title="on_failed_trials",
        description="How the run ends when some trials have failed. "
        "It always fails when none has finished.",
    ),
}


def _request() -> dict:
    """What this run was triggered with: the experiment's `fields`, and the options."""
    params = dict(get_current_context()["params"])
    options = {name: params.pop(name) for name in OPTIONS}
    if options["preset"] != NO_PRESET:
        params = experiments.preset(options["preset"])
    return {"fields": params, **options}


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
- `summarise` shows the best trials. The dashboards follow when `experiment_etl` has run, which
  this DAG triggers when it ends.
""",
)
def grid_search():
    @task
    def plan() -> list[list[int]]:
        """Check the form and register the experiment; nothing is registered when it is wrong."""
        request = _request()
        try:
            return search.plan(request["fields"], request["trials_per_task"])
        except ValueError as error:
            raise AirflowFailException(f"This grid cannot be run.\n{error}") from None

    @task(pool="training", retries=2, map_index_template="{{ label }}")
    def run_trials(trial_ids: list[int]) -> dict[str, int]:
        """Run a few trials one after the other."""
        first, last = trial_ids[0], trial_ids[-1]
        get_current_context()["label"] = (
            f"trial {first}" if first == last else f"trials {first}-{last}"
        )
        return search.run(trial_ids)

    @task(trigger_rule="all_done", outlets=[Asset(EXPERIMENTS)])
    def summarise(shards: list[list[int]] | None) -> dict:
        """Count the trials by state and list the best."""
        if shards is None:
            raise AirflowFailException("nothing was run: see the log of the task 'plan'")
        request = _request()
        trial_ids = [id for shard in shards for id in shard]
        summary = search.summarise(request["fields"]["experiment"], trial_ids)
        if summary["left"]:
            raise AirflowFailException(
                f"{summary['left']} trials have not run to their end: see the tasks of "
                "'run_trials' that failed, then trigger this again to run only those trials"
            )
        if summary["failed"] and request["on_failed_trials"] == "fail":
            raise AirflowFailException(f"{summary['failed']} trials failed; they are listed above")
        if not summary["trials"].get("finished"):
            raise AirflowFailException("every trial failed; their errors are listed above")
        return summary

    shards = plan()
    run_trials.expand(trial_ids=shards) >> summarise(shards)


grid_search()
