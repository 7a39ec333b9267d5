"""Convolutional network for classifying pictures in torch, with a learning curve per epoch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.models import Model
from training.networks import GradientDescent, train_classifier
from training.session import Session
from training.splits import Data


class CnnHyperparameters(GradientDescent):
    channels: int = Field(16, ge=1, le=512, description="channels of the first convolution")
    convolutions: int = Field(
        2, ge=1, le=3, description="convolutions; each halves the picture and doubles the channels"
    )
    kernel_size: Literal[1, 3, 5, 7] = Field(3, description="side of the convolutions, in pixels")


def train(params: CnnHyperparameters, data: Data, seed: int, session: Session) -> None:
    from torch import nn

    def build() -> nn.Module:
        height, width = data.image
        stack: list[nn.Module] = [nn.Unflatten(1, (1, height, width))]
        before = 1
        for i in range(params.convolutions):
            channels = params.channels * 2**i
            stack += [
                nn.Conv2d(before, channels, params.kernel_size, padding="same"),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
            height, width, before = -(-height // 2), -(-width // 2), channels
        stack += [nn.Flatten(), nn.Dropout(params.dropout)]
        return nn.Sequential(*stack, nn.Linear(before * height * width, data.classes))

    train_classifier(build, params, data, seed, session)


MODEL = Model(library="torch", hyperparameters=CnnHyperparameters, train=train, images=True)
