"""Multilayer perceptron for classification in torch, with a learning curve per epoch."""

from __future__ import annotations

from pydantic import Field

from training.models import Model
from training.networks import GradientDescent, train_classifier
from training.session import Session
from training.splits import Data


class MlpHyperparameters(GradientDescent):
    hidden: int = Field(64, ge=1, le=4096, description="units of each hidden layer")
    layers: int = Field(1, ge=1, le=8, description="hidden layers")


def train(params: MlpHyperparameters, data: Data, seed: int, session: Session) -> None:
    from torch import nn

    def build() -> nn.Module:
        width, stack = data.train_x.shape[1], []
        for _ in range(params.layers):
            stack += [nn.Linear(width, params.hidden), nn.ReLU(), nn.Dropout(params.dropout)]
            width = params.hidden
        return nn.Sequential(*stack, nn.Linear(width, data.classes))

    train_classifier(build, params, data, seed, session)


MODEL = Model(library="torch", hyperparameters=MlpHyperparameters, train=train)
