"""Optimisers that take one gradient per step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntkrun.checked import Fraction, Positive


@dataclass(kw_only=True, eq=False)
class Optimizer(ABC):
    """A torch optimiser fed with gradients by name.

    Args:
        learning_rate: the rate that the schedule multiplies.
    """

    learning_rate: Positive[float] = 1e-3

    def start(self, network: nn.Module) -> None:
        """Take charge of the network's trainable parameters.

        Raises:
            ValueError: the learning rate overflows the parameters' precision.
        """
        dtype = next(network.parameters()).dtype
        if self.learning_rate > torch.finfo(dtype).max:
            raise ValueError(f"learning_rate={self.learning_rate}: too large for {dtype}")
        self._parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._torch = self.build(list(self._parameters.values()))

    @abstractmethod
    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser for these parameters."""

    def step(self, gradient: Mapping[str, Tensor], factor: float) -> None:
        """Update the parameters.

        Args:
            gradient: of the weighted loss, by parameter name.
            factor: the schedule's factor of the learning rate at this step.
        """
        for group in self._torch.param_groups:
            group["lr"] = self.learning_rate * factor
        for name, parameter in self._parameters.items():
            parameter.grad = gradient[name]
        self._torch.step()
        self._torch.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The torch optimiser's state."""
        return self._torch.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._torch.load_state_dict(dict(state))


@dataclass(kw_only=True, eq=False)
class GradientDescent(Optimizer):
    """Plain gradient descent."""

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.learning_rate)


@dataclass(kw_only=True, eq=False)
class Adam(Optimizer):
    """Adam (Kingma, Ba, arXiv 1412.6980).

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the denominator.
    """

    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Positive[float] = 1e-8

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.Adam(parameters, lr=self.learning_rate, betas=betas, eps=self.epsilon, fused=True)
