"""One writer of the store benchmark, for us or for MLflow: run by `bench/store.py`.

Arguments: library, mode, number of the writer, trials, steps a trial. It prints "ready" when its
imports and its experiment are there, waits for a line, writes, and prints what it did as JSON.
Each step has three metrics. Only the standard library and the library measured are imported.
"""

import json
import sys
import time

METRICS = {"loss": 0.5, "accuracy": 0.25, "f1": 0.125}


def ours(mode, number, trials, steps):
    import mled

    study = mled.experiment("bench", dataset="d", model="m")
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


def mlflow(mode, number, trials, steps):
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("bench").experiment_id

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


def main():
    library, mode = sys.argv[1:3]
    number, trials, steps = map(int, sys.argv[3:])
    write = {"ours": ours, "mlflow": mlflow}[library](mode, number, trials, steps)
    print("ready", flush=True)
    sys.stdin.readline()
    errors = []
    began = time.time()
    try:
        write()
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}"[:200])
    print(json.dumps({"began": began, "ended": time.time(), "errors": errors}), flush=True)


if __name__ == "__main__":
    main()
