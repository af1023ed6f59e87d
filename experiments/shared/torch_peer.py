"""TorchRL's network and update in eager PyTorch, as TorchRL runs them: the peer of our update in `throughput.py`.

It takes the same batch as our update, in TorchRL's form: float32 stacks, channels first, already normalised.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

STATES, TAU, LEARNING_RATE, WEIGHT_DECAY = 4, 0.005, 2e-3, 1e-5


class DuelingCNN(nn.Module):
    """TorchRL's network: 1,262,691 parameters for 64x64x4 and two actions."""

    def __init__(self, num_actions: int = 2) -> None:
        """Build the network with PyTorch's default initialisation, which does not affect speed."""
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(STATES, 32, 6, 2), nn.ELU(), nn.Conv2d(32, 64, 4, 2), nn.ELU()),
            *(nn.Conv2d(64, 64, 3, 1), nn.ELU(), nn.Flatten()),
        )
        self.advantage = head(num_actions)
        self.value = head(1)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Return action values `[B, num_actions]` for stacks `[B, 4, 64, 64]`."""
        features = self.features(obs)
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(-1, keepdim=True)


def head(width: int) -> nn.Sequential:
    """Return a head with two hidden layers on 9,216 features."""
    return nn.Sequential(nn.Linear(9216, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, width))


class Learner:
    """Network, target network and Adam, with TorchRL's settings."""

    def __init__(self, memory_format: torch.memory_format = torch.contiguous_format) -> None:
        """Build them; `memory_format` applies to weights and observations."""
        self.memory_format = memory_format
        self.network = DuelingCNN().to(memory_format=memory_format)
        self.target = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def update(
        self,
        obs: torch.Tensor,
        action: torch.Tensor,
        reward: torch.Tensor,
        discount: torch.Tensor,
        next_obs: torch.Tensor,
    ) -> torch.Tensor:
        """Make one update (squared TD error, Adam with L2 weight decay, Polyak step of the target); return the loss."""
        with torch.no_grad():
            target = reward + discount * self.target(next_obs).max(-1).values
        taken = self.network(obs).gather(-1, action[:, None])[:, 0]
        loss = (taken - target).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(self.network.parameters()), TAU)
        return loss.detach()

    def batch(self, size: int) -> Iterator[torch.Tensor]:
        """Yield the arguments of `update`, with random values."""
        frames = lambda: torch.randn(size, STATES, 64, 64).to(memory_format=self.memory_format)  # noqa: E731
        yield frames()
        yield torch.randint(2, (size,))
        yield torch.randn(size)
        yield torch.full((size,), 0.99**5)
        yield frames()
