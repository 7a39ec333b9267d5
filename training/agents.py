"""What the reinforcement-learning agents have in common: hyperparameters, episodes, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from training.models import EarlyStopping

if TYPE_CHECKING:
    import torch
    from torch import nn

GAMES = 5
# Seeds of episodes: far apart for different trials, and those of evaluations never trained on.
EPISODE_SEEDS, EVALUATION_SEEDS = 100_000, 50_000


class Agent(EarlyStopping):
    """Hyperparameters of every agent."""

    episodes: int = Field(150, ge=1, le=EVALUATION_SEEDS, description="episodes to train on")
    hidden: int = Field(64, ge=1, le=4096, description="units of each of two hidden layers")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="step size of the optimizer")
    discount: float = Field(0.99, ge=0, le=1, description="worth of a reward one step later")
    evaluate_every: int = Field(10, ge=1, le=10_000, description="episodes between evaluations")


def network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers: observations, shape (…, inputs), to (…, outputs)."""
    from torch import nn

    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, outputs),
    )  # fmt: skip


def start(env: Any, seed: int, episode: int) -> torch.Tensor:
    """First observation, shape (observation,), of a trial's episode."""
    return tensor(env.reset(seed=seed * EPISODE_SEEDS + episode)[0])


def tensor(observation: Any) -> torch.Tensor:
    import torch

    return torch.as_tensor(observation, dtype=torch.float32)


def best(values: nn.Module, observation: torch.Tensor) -> int:
    """The action with the largest output of `values`."""
    import torch

    with torch.no_grad():
        return int(values(observation).argmax())


def annealed(first: float, last: float, steps: int, taken: int) -> float:
    """A value that goes from `first` to `last` in a line over `steps` environment steps."""
    done = min(1.0, taken / steps)
    return first + done * (last - first)


def is_evaluated(params: Agent, episode: int) -> bool:
    """Whether the agent is evaluated behind this episode: every few, and the last."""
    return episode % params.evaluate_every == 0 or episode == params.episodes - 1


def evaluate(env: Any, values: nn.Module, seed: int) -> float:
    """Mean return of `GAMES` games of the `best` actions, always from the same starts."""
    total = 0.0
    for game in range(GAMES):
        observation, over = start(env, seed, EVALUATION_SEEDS + game), False
        while not over:
            after, reward, end, cut, _ = env.step(best(values, observation))
            observation, over = tensor(after), end or cut
            total += float(reward)
    return total / GAMES
