"""Multilayer perceptron for classification in torch, with a learning curve per epoch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.datasets import Data
from training.metrics import classification
from training.models import Hyperparameters, Log, Model


class MlpHyperparameters(Hyperparameters):
    hidden: int = Field(64, ge=1, le=4096, description="units of each hidden layer")
    layers: int = Field(1, ge=1, le=8, description="hidden layers")
    learning_rate: float = Field(1e-2, gt=0, le=10, description="step size of the optimizer")
    batch_size: int = Field(64, ge=1, le=65_536, description="rows of one gradient step")
    epochs: int = Field(20, ge=1, le=10_000, description="passes over the training rows")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of units left out in training")
    weight_decay: float = Field(0.0, ge=0, le=1, description="L2 penalty on the weights")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="gradient method")


def train(params: MlpHyperparameters, data: Data, seed: int, log: Log) -> None:
    import torch
    from torch import nn

    torch.manual_seed(seed)
    mean, scale = data.train_x.mean(axis=0), data.train_x.std(axis=0)
    scale[scale == 0] = 1.0

    def tensors(x, y):
        return (
            torch.from_numpy((x - mean) / scale).float(),
            torch.from_numpy(y).long(),
        )

    train_x, train_y = tensors(data.train_x, data.train_y)
    evaluation_x, evaluation_y = tensors(data.evaluation_x, data.evaluation_y)

    width, stack = train_x.shape[1], []
    for _ in range(params.layers):
        stack += [nn.Linear(width, params.hidden), nn.ReLU(), nn.Dropout(params.dropout)]
        width = params.hidden
    model = nn.Sequential(*stack, nn.Linear(width, data.classes))
    methods = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = methods[params.optimizer](
        model.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
    )
    loss_of = nn.CrossEntropyLoss()
    for epoch in range(params.epochs):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(train_x)).split(params.batch_size):
            optimizer.zero_grad()
            loss = loss_of(model(train_x[rows]), train_y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        model.eval()
        with torch.no_grad():
            logits = model(evaluation_x)
            metrics = classification(data.evaluation_y, logits.argmax(dim=1).numpy())
            metrics["loss"] = loss_of(logits, evaluation_y).item()
        log({"train_loss": total / len(train_x), **metrics}, step=epoch)


MODEL = Model(library="torch", hyperparameters=MlpHyperparameters, train=train)
