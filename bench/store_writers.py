"""One writer of the store benchmark, for us or for MLflow: run by `bench/store.py`.

Argument: the library. After its imports, which take seconds, it prints "ready" and waits for jobs,
a line of JSON each: `url` of the store, `mode`, `number` of the writer, `trials`, `steps` a trial.
Once it has opened the store it prints "open" and waits for a line; then it writes, and prints what
it did as JSON. Each step has three metrics. Only the standard library and the library measured are
imported.
"""

import json
import os
import sys
import time

METRICS = {"loss": 0.5, "accuracy": 0.25, "f1": 0.125}
EXPERIMENT = "bench"


def ours():
    import mled

    def open_store(url, mode, number, trials, steps):
        os.environ["MLED_STORE_URL"] = url
        study = mled.experiment(EXPERIMENT, dataset="d", model="m")
        with study.trial({"warm": number}) as trial:
            trial.log(METRICS, step=0)

        def write():
            for t in range(trials):
                with study.trial({"writer": number, "trial": t}) as trial:
                    for step in range(steps):
                        trial.log(METRICS, step=step)
                        if mode == "step, durable" or (mode == "batch" and step % 333 == 332):
                            trial.flush()

        return write

    return open_store


def mlflow():
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    def open_store(url, mode, number, trials, steps):
        client = MlflowClient(url)
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id

        def write():
            for t in range(trials):
                run = client.create_run(experiment).info.run_id
                client.log_param(run, "trial", t)
                batch = []
                for step in range(steps):
                    now = int(time.time() * 1000)
                    points = [Metric(name, value, now, step) for name, value in METRICS.items()]
                    if mode == "batch":
                        batch += points
                        if len(batch) >= 999 or step == steps - 1:
                            client.log_batch(run, metrics=batch)
                            batch = []
                    else:
                        client.log_batch(run, metrics=points)
                client.set_terminated(run)

        return write

    return open_store


def main():
    open_store = {"ours": ours, "mlflow": mlflow}[sys.argv[1]]()
    print("ready", flush=True)
    for line in sys.stdin:
        write = open_store(**json.loads(line))
        print("open", flush=True)
        sys.stdin.readline()
        errors = []
        began, cpu = time.time(), time.process_time()
        try:
            write()
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:200])
        times = {"began": began, "ended": time.time(), "cpu_s": time.process_time() - cpu}
        print(json.dumps({**times, "errors": errors}), flush=True)


if __name__ == "__main__":
    main()
