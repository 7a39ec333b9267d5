"""Advantage actor-critic: a policy-gradient agent in torch, for gymnasium's CartPole.

A point is logged for each episode: its return and length, the environment steps so far, the losses
of the policy and of the value network, the policy's entropy in nats, and the weight that entropy
has in the loss, which is how much the agent is made to explore. Every few episodes, and after the
last, the agent plays its likeliest actions: `evaluation_return` is the mean return of these games.

The gradient is that of REINFORCE with the value network as its baseline (Sutton and Barto,
Reinforcement Learning, 2nd edition, section 13.4), with an entropy bonus (Mnih et al. 2016,
arXiv:1602.01783).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from training.agents import Agent, annealed, evaluate, is_evaluated, network, start, tensor
from training.datasets import REINFORCEMENT, Environment
from training.models import Model
from training.session import Session

if TYPE_CHECKING:
    import torch


class ActorCriticHyperparameters(Agent):
    learning_rate: float = Field(5e-3, gt=0, le=10, description="step size of the optimizer")
    value_weight: float = Field(0.5, ge=0, le=100, description="weight of the value loss")
    entropy_start: float = Field(0.02, ge=0, le=10, description="weight of the entropy at first")
    entropy_end: float = Field(0.0, ge=0, le=10, description="weight of the entropy at last")
    entropy_steps: int = Field(
        10_000, ge=1, le=10_000_000, description="environment steps from the first to the last"
    )
    monitor: Literal["episode_return", "evaluation_return", "policy_loss", "value_loss"] = Field(
        "evaluation_return", description="metric that patience watches"
    )


class Steps:
    """How many steps the agent has taken in all."""

    count = 0

    def state_dict(self) -> dict:
        return {"count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.count = state["count"]


def train(params: ActorCriticHyperparameters, data: Environment, seed: int, session: Session):
    import gymnasium
    import torch
    from torch import nn
    from torch.distributions import Categorical

    torch.manual_seed(seed)
    env = gymnasium.make(data.id)
    inputs, actions = env.observation_space.shape[0], int(env.action_space.n)
    policy, values = network(inputs, params.hidden, actions), network(inputs, params.hidden, 1)
    both = [*policy.parameters(), *values.parameters()]
    optimizer = torch.optim.Adam(both, lr=params.learning_rate)
    steps = Steps()

    def entropy_weight() -> float:
        first, last = params.entropy_start, params.entropy_end
        return annealed(first, last, params.entropy_steps, steps.count)

    def learn(observations, taken, rewards, rest: float) -> dict[str, float]:
        seen = torch.stack(observations)
        wanted = returns(rewards, rest, params.discount)
        expected = values(seen).squeeze(1)
        advantage = wanted - expected.detach()
        if len(advantage) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        chances = Categorical(logits=policy(seen))
        policy_loss = -(chances.log_prob(torch.tensor(taken)) * advantage).mean()
        value_loss = nn.functional.smooth_l1_loss(expected, wanted)
        entropy = chances.entropy().mean()
        loss = policy_loss + params.value_weight * value_loss - entropy_weight() * entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return {name: value.item() for name, value in losses.items()}

    parts = {"policy": policy, "values": values, "optimizer": optimizer, "steps": steps}
    for episode in session.epochs(params.episodes, params, **parts):
        observation, over = start(env, seed, episode), False
        observations, taken, rewards = [], [], []
        while not over:
            with torch.no_grad():
                action = int(Categorical(logits=policy(observation)).sample())
            after, reward, end, cut, _ = env.step(action)
            observations.append(observation)
            taken.append(action)
            rewards.append(float(reward))
            observation, over = tensor(after), end or cut
        steps.count += len(rewards)
        # An episode that was cut short would have gone on.
        rest = 0.0 if end else float(values(observation))
        metrics = {
            "episode_return": sum(rewards),
            "episode_length": len(rewards),
            "environment_steps": steps.count,
            "entropy_weight": entropy_weight(),
            **learn(observations, taken, rewards, rest),
        }
        if is_evaluated(params, episode):
            metrics["evaluation_return"] = evaluate(env, policy, seed)
        session.log(metrics, step=episode)
    env.close()


def returns(rewards: list[float], rest: float, discount: float) -> torch.Tensor:
    """The discounted sum of the rewards from each step on, shape (steps,).

    `rest` is what the steps behind the last one are worth.
    """
    import torch

    sums, total = [], rest
    for reward in reversed(rewards):
        total = reward + discount * total
        sums.append(total)
    return torch.tensor(sums[::-1])


MODEL = Model(
    library="torch",
    hyperparameters=ActorCriticHyperparameters,
    train=train,
    tasks=(REINFORCEMENT,),
)
