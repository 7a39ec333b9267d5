"""Deep Q-network: a reinforcement-learning agent in torch, for gymnasium's CartPole.

A point is logged for each episode: its return and length, the environment steps so far, the loss
of the value network (there is no policy network, so there is no policy loss), and epsilon, the
share of random actions. Every few episodes, and after the last, the agent plays without
exploring: `evaluation_return` is the mean return of these games.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from training.datasets import REINFORCEMENT, Environment
from training.models import EarlyStopping, Model
from training.session import Session

if TYPE_CHECKING:
    import torch
    from torch import nn

GAMES = 5
# Seeds of episodes: far apart for different trials, and those of evaluations never trained on.
EPISODE_SEEDS, EVALUATION_SEEDS = 100_000, 50_000


class DqnHyperparameters(EarlyStopping):
    episodes: int = Field(150, ge=1, le=EVALUATION_SEEDS, description="episodes to train on")
    hidden: int = Field(64, ge=1, le=4096, description="units of each of two hidden layers")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="step size of the optimizer")
    discount: float = Field(0.99, ge=0, le=1, description="worth of a reward one step later")
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
    evaluate_every: int = Field(10, ge=1, le=10_000, description="episodes between evaluations")
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

    def network() -> nn.Module:
        width = params.hidden
        return nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, actions),
        )  # fmt: skip

    values, target = network(), network()
    target.load_state_dict(values.state_dict())
    optimizer = torch.optim.Adam(values.parameters(), lr=params.learning_rate)
    memory = Memory(params.memory, inputs)

    def epsilon() -> float:
        done = min(1.0, memory.steps / params.epsilon_steps)
        return params.epsilon_start + done * (params.epsilon_end - params.epsilon_start)

    def learn() -> float:
        before, action, reward, after, end = memory.draw(params.batch_size)
        with torch.no_grad():
            best = target(after).max(dim=1, keepdim=True).values
            wanted = reward + params.discount * best * (1 - end)
        loss = nn.functional.smooth_l1_loss(values(before).gather(1, action.long()), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if memory.steps // params.train_every % params.target_every == 0:
            target.load_state_dict(values.state_dict())
        return loss.item()

    parts = {"values": values, "target": target, "optimizer": optimizer, "memory": memory}
    for episode in session.epochs(params.episodes, params, **parts):
        observation = _tensor(env.reset(seed=seed * EPISODE_SEEDS + episode)[0])
        total, length, losses, over = 0.0, 0, [], False
        while not over:
            if torch.rand(()) < epsilon():
                action = int(torch.randint(actions, ()))
            else:
                action = _best(values, observation)
            after, reward, end, cut, _ = env.step(action)
            memory.add(observation, action, float(reward), _tensor(after), end)
            observation, over = _tensor(after), end or cut
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
        if episode % params.evaluate_every == 0 or episode == params.episodes - 1:
            metrics["evaluation_return"] = _evaluate(env, values, seed)
        session.log(metrics, step=episode)
    env.close()


def _tensor(observation) -> torch.Tensor:
    import torch

    return torch.as_tensor(observation, dtype=torch.float32)


def _best(values: nn.Module, observation: torch.Tensor) -> int:
    import torch

    with torch.no_grad():
        return int(values(observation).argmax())


def _evaluate(env, values: nn.Module, seed: int) -> float:
    """Mean return of games without random actions, always from the same starts."""
    total = 0.0
    for game in range(GAMES):
        start = seed * EPISODE_SEEDS + EVALUATION_SEEDS + game
        observation, over = env.reset(seed=start)[0], False
        while not over:
            observation, reward, end, cut, _ = env.step(_best(values, _tensor(observation)))
            total, over = total + float(reward), end or cut
    return total / GAMES


MODEL = Model(
    library="torch", hyperparameters=DqnHyperparameters, train=train, tasks=(REINFORCEMENT,)
)
