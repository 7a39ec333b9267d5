"""Keeps a core busy for a given time, and learns nothing: the overhead of everything else."""

from __future__ import annotations

from pydantic import Field

from training.models import Hyperparameters, Model


class BusyHyperparameters(Hyperparameters):
    number: int = Field(0, description="tells trials apart")
    seconds: float = Field(0.0, ge=0, description="of processor time")


def train(params: BusyHyperparameters, data, seed: int, session) -> None:
    from bench.grid_work import work

    session.log({"accuracy": 1.0, "work_s": work(params.seconds)})


MODEL = Model(library="none", hyperparameters=BusyHyperparameters, train=train)
