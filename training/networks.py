"""What the torch classifiers have in common: hyperparameters, and training epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from training.metrics import classification
from training.models import EarlyStopping
from training.session import Session
from training.splits import Data

if TYPE_CHECKING:
    from torch import nn


class GradientDescent(EarlyStopping):
    """Hyperparameters of training a network."""

    learning_rate: float = Field(1e-2, gt=0, le=10, description="step size of the optimizer")
    batch_size: int = Field(64, ge=1, le=65_536, description="rows of one gradient step")
    epochs: int = Field(20, ge=1, le=10_000, description="passes over the training rows")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of units left out in training")
    weight_decay: float = Field(0.0, ge=0, le=1, description="L2 penalty on the weights")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="gradient method")
    monitor: Literal["loss", "accuracy", "f1"] = Field(
        "loss", description="metric on the evaluation rows that patience watches"
    )


def train_classifier(
    build: Callable[[], nn.Module],
    params: GradientDescent,
    data: Data,
    seed: int,
    session: Session,
) -> None:
    """Train the network that `build` makes on standardised features; log a point each epoch.

    The network maps float32 features, shape (n, features), to logits, shape (n, classes).
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    mean, scale = data.train_x.mean(axis=0), data.train_x.std(axis=0)
    scale[scale == 0] = 1.0

    def tensors(x, y):
        return torch.from_numpy((x - mean) / scale).float(), torch.tensor(y)

    train_x, train_y = tensors(data.train_x, data.train_y)
    evaluation_x, evaluation_y = tensors(data.evaluation_x, data.evaluation_y)
    model = build()
    methods = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = methods[params.optimizer](
        model.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
    )
    loss_of = nn.CrossEntropyLoss()
    for epoch in session.epochs(params.epochs, params, model=model, optimizer=optimizer):
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
        session.log({"train_loss": total / len(train_x), **metrics}, step=epoch)
