"""Deep Q-network: a reinforcement-learning agent in torch, for gymnasium's CartPole.

A point is logged for each episode: its return and length, the environment steps so far, the loss
of the value network (there is no policy network, so there is no policy loss), and epsilon, the
share of random actions. Every few episodes, and after the last, the agent plays without
exploring: `evaluation_return` is the mean return of these games.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from training.agents import Agent, annealed, best, evaluate, is_evaluated, network, start, tensor
from training.datasets import REINFORCEMENT, Environment
from training.models import Model
from training.session import Session

if TYPE_CHECKING:
    import torch


class DqnHyperparameters(Agent):
    batch_size: int = Field(64, ge=1, le=65_536, description="remembered steps of a gradient step")
    memory: int = Field(10_000, ge=1, le=1_000_000, description="steps that are remembered")
    train_every: int = Field(1, ge=1, le=1000, description="environment steps per gradient step")
    target_every: int = Field(
        200, ge=1, le=1_000_000, description="gradient steps between updates of the target network"
    )
    epsilon_start: float = Field(1.0, ge=0, le=1, description="share of random actions at first")
    epsilon_end: float = Field(0.05, ge=0, le=1, description="share of random actions at last")
    epsilon_steps: int = Field(
        3000, ge=1, le=10_000_000, description="environment steps from the first to the last"
    )
    monitor: Literal["episode_return", "evaluation_return", "value_loss"] = Field(
        "evaluation_return", description="metric that patience watches"
    )


class Memory:
    """The last steps that the agent has taken, and how many steps it has taken in all."""

    def __init__(self, size: int, observation: int):
        import torch

        self.steps = 0
        self._size = size
        self._rows = torch.zeros(size, 2 * observation + 3)
        self._parts = [observation, 1, 1, observation, 1]

    def add(self, before: torch.Tensor, action: int, reward: float, after, end: bool) -> None:
        """One step; `before` and `after` are observations, shape (observation,)."""
        import torch

        rest = torch.tensor([action, reward]), after, torch.tensor([float(end)])
        self._rows[self.steps % self._size] = torch.cat([before, *rest])
        self.steps += 1

    def draw(self, count: int) -> tuple[torch.Tensor, ...]:
        """Observations, actions, rewards, next observations, ends of random steps."""
        import torch

        rows = self._rows[torch.randint(min(self.steps, self._size), (count,))]
        return rows.split(self._parts, dim=1)

    def state_dict(self) -> dict:
        return {"steps": self.steps, "rows": self._rows[: self.steps].clone()}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        self._rows[: len(state["rows"])] = state["rows"]


def train(params: DqnHyperparameters, data: Environment, seed: int, session: Session) -> None:
    import gymnasium
    import torch
    from torch import nn

    torch.manual_seed(seed)
    env = gymnasium.make(data.id)
    inputs, actions = env.observation_space.shape[0], int(env.action_space.n)

    values, target = (network(inputs, params.hidden, actions) for _ in range(2))
    target.load_state_dict(values.state_dict())
    optimizer = torch.optim.Adam(values.parameters(), lr=params.learning_rate)
    memory = Memory(params.memory, inputs)

    def epsilon() -> float:
        first, last = params.epsilon_start, params.epsilon_end
        return annealed(first, last, params.epsilon_steps, memory.steps)

    def learn() -> float:
        before, action, reward, after, end = memory.draw(params.batch_size)
        with torch.no_grad():
            worth = target(after).max(dim=1, keepdim=True).values
            wanted = reward + params.discount * worth * (1 - end)
        loss = nn.functional.smooth_l1_loss(values(before).gather(1, action.long()), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if memory.steps // params.train_every % params.target_every == 0:
            target.load_state_dict(values.state_dict())
        return loss.item()

    parts = {"values": values, "target": target, "optimizer": optimizer, "memory": memory}
    for episode in session.epochs(params.episodes, params, **parts):
        observation = start(env, seed, episode)
        total, length, losses, over = 0.0, 0, [], False
        while not over:
            if torch.rand(()) < epsilon():
                action = int(torch.randint(actions, ()))
            else:
                action = best(values, observation)
            after, reward, end, cut, _ = env.step(action)
            memory.add(observation, action, float(reward), tensor(after), end)
            observation, over = tensor(after), end or cut
            total, length = total + float(reward), length + 1
            if memory.steps >= params.batch_size and memory.steps % params.train_every == 0:
                losses.append(learn())
        metrics = {
            "episode_return": total,
            "episode_length": length,
            "environment_steps": memory.steps,
            "epsilon": epsilon(),
        }
        if losses:
            metrics["value_loss"] = sum(losses) / len(losses)
        if is_evaluated(params, episode):
            metrics["evaluation_return"] = evaluate(env, values, seed)
        session.log(metrics, step=episode)
    env.close()


MODEL = Model(
    library="torch", hyperparameters=DqnHyperparameters, train=train, tasks=(REINFORCEMENT,)
)
